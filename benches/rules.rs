//! How fast rules are compiled and evaluated: `cargo bench --bench rules`.

#![expect(missing_docs, reason = "the functions that the macros of criterion make have none")]
#![expect(clippy::expect_used, reason = "a bench that cannot run says so")]

#[path = "support/allocator.rs"]
mod allocator;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use highwater::domain::quantity::Quantity;
use highwater::domain::rule::{RuleProgram, Value};
use std::hint::black_box;

const RULES: [(&str, &str); 4] = [
    ("level", "quota_percent > 85"),
    ("window", "sum(\"api.requests\") > 1000"),
    ("both", "quota_percent > 85 && sum > 100"),
    ("arithmetic", "used / limit > 0.85 && (max - min) * 2 > avg || count == 0"),
];

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("evaluate");
    group.throughput(Throughput::Elements(1));
    for (name, source) in RULES {
        let program = RuleProgram::compile(source).expect("a rule");
        let values = vec![Value::Known(Quantity::whole(86)); program.inputs().len()];
        group.bench_function(name, |b| b.iter(|| program.evaluate(black_box(&values))));
    }
    group.finish();
    let mut group = c.benchmark_group("compile");
    for (name, source) in RULES {
        group.bench_function(name, |b| b.iter(|| RuleProgram::compile(black_box(source))));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
