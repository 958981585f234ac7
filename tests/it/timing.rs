//! Whether a caller can tell an unknown key from a known one with a wrong secret by how long the refusal takes (row 8 of
//! the security checklist): Welch's t-test over interleaved samples.
//!
//! `HIGHWATER_TEST_TIMING_SAMPLES` sets the samples of each kind; 100,000 in a release build is what the checklist asks for.

use crate::load::Random;
use crate::server::Server;
use highwater::credential::{AuthError, authenticate};
use highwater::domain::id::Mode;
use highwater::runtime::clock::{self, Stopwatch};
use secrecy::ExposeSecret;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

const SAMPLES_DEFAULT: usize = 20_000;
/// Beyond it the difference is real with a certainty of 99.999 %.
const T_MAX: f64 = 4.5;
/// A machine that is busy with other things moves one kind now and then; a leak moves it each time, in one direction.
const ATTEMPTS: usize = 5;
const BATCH: usize = 500;

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of the product")]
fn samples() -> usize {
    std::env::var("HIGHWATER_TEST_TIMING_SAMPLES").map_or(SAMPLES_DEFAULT, |samples| samples.parse().unwrap())
}

/// Welch's t of two samples, without what is above the 90th percentile of both: interrupts are no signal.
fn welch(kinds: &[Vec<f64>; 2]) -> f64 {
    let mut all: Vec<f64> = kinds.concat();
    all.sort_by(f64::total_cmp);
    let cut = all[all.len() * 9 / 10];
    let [a, b] = kinds.each_ref().map(|times| {
        let kept: Vec<f64> = times.iter().copied().filter(|time| *time <= cut).collect();
        let n = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / n;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    });
    (a.0 - b.0) / (a.1 + b.1).sqrt()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(debug_assertions, ignore = "times mean something in a release build alone")]
async fn a_refusal_takes_as_long_for_unknown_keys_as_for_wrong_secrets() {
    let server = Server::start().await;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let made = || highwater::credential::generate(Mode::Live, clock::random()).expose_secret().to_owned();
    // Keys with the public part of one that exists, and another secret; the checksum fits.
    let wrong = |public: &str| {
        let other = made();
        let body = format!("{}{}", &public[..21], &other[21..53]);
        format!("{body}{}", checksum(&body))
    };
    // One of each, or what changes with every sample would be slower for its novelty, whoever it belongs to.
    let (known, unknown) = (server.key.clone(), made());
    let state = server.node().data.control.state().clone();
    let mut random = Random(u64::from(std::process::id()));
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut kinds = [Vec::new(), Vec::new()];
        while kinds.iter().any(|times| times.len() < samples()) {
            // Made beforehand, and both for each sample, so that how they are made leaves no trace in the caches.
            let batch: Vec<(usize, [String; 2])> = (0..BATCH)
                .map(|_| (usize::try_from(random.below(2)).unwrap(), [wrong(&unknown), wrong(&known)]))
                .collect();
            let now = clock::now();
            for (kind, presented) in &batch {
                let stopwatch = Stopwatch::start();
                let refused = black_box(authenticate(&state, black_box(&presented[*kind]), address, now));
                let took = stopwatch.elapsed();
                assert_eq!(refused.unwrap_err(), AuthError::Invalid);
                kinds[*kind].push(took.as_nanos() as f64);
            }
        }
        seen.push(welch(&kinds));
        if seen.last().unwrap().abs() < T_MAX {
            println!("t = {seen:.2?} over {} samples of each kind", samples());
            return;
        }
    }
    panic!("t = {seen:.2?}: unknown keys and wrong secrets are told apart by time");
}

/// The last six characters of a key: base 62 of the CRC-32 of all before.
fn checksum(before: &str) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(before.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    String::from_utf8(digits.to_vec()).unwrap()
}
