//! Prints events as JSON lines of 171 bytes each: `generate COUNT [ACCOUNTS] [METRICS]`.
//!
//! The events end now and span the last 55 minutes, so every one is inside the lateness horizon.

#![expect(clippy::expect_used, reason = "an example that cannot run says so")]

use std::io::{BufWriter, Write};

const METRICS: [&str; 5] = ["api.requests", "storage.bytes", "compute.ms", "egress.bytes", "jobs.run"];
const LINE_BYTES: usize = 171;
const SPAN_MS: i64 = 55 * 60_000;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<i64>().expect("a whole number"));
    let count = arguments.next().expect("how many events");
    let accounts = arguments.next().unwrap_or(1_000);
    let metrics = arguments.next().unwrap_or(5).clamp(1, 5);
    let start = jiff::Timestamp::now().as_millisecond() - SPAN_MS;
    let run = start % 1_000_000_007;
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let mut line = Vec::with_capacity(LINE_BYTES);
    for number in 0..count {
        let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let account = mixed as i64 % accounts;
        let metric = METRICS[(mixed >> 13) as usize % metrics as usize];
        let at = jiff::Timestamp::from_millisecond(start + SPAN_MS * number / count).expect("an instant of this age");
        line.clear();
        write!(
            line,
            r#"{{"id":"{run:010}-{number:09}","account_id":"acc_{account:05}","metric":"{metric}","value":{},"timestamp":"{at:.3}","dimensions":{{"region":"eu""#,
            1 + mixed % 9
        )?;
        let padding = LINE_BYTES.saturating_sub(line.len() + r#","p":""}}"#.len() + 1);
        writeln!(line, r#","p":"{:x<padding$}"}}}}"#, "")?;
        out.write_all(&line)?;
    }
    out.flush()
}
