//! Runs deterministic mutations of the seed corpus through the BGP codec, without a fuzzing
//! toolchain: `cargo run --release -p tests --bin fuzz-wire -- --executions 10000000`.
#![expect(clippy::print_stdout, reason = "a command that reports")]

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tests::fuzz::mutate::{Random, mutate};
use tests::fuzz::wire;

struct Arguments {
    executions: u64,
    seed: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = arguments()?;
    let seeds = seeds()?;
    let mut random = Random::new(arguments.seed);
    let mut totals = Totals::default();
    let start = Instant::now();
    for execution in 0..arguments.executions {
        let input =
            match (seeds.get(random.below(seeds.len())), seeds.get(random.below(seeds.len()))) {
                (Some(input), Some(other)) => mutate(input, other, &mut random),
                _ => bail!("the corpus is empty"),
            };
        let began = Instant::now();
        let outcome = catch_unwind(|| wire::run(&input));
        totals.slowest = totals.slowest.max(began.elapsed());
        match outcome {
            Ok(outcome) => totals.count(&outcome),
            Err(_) => {
                totals.panics += 1;
                println!("execution {execution} panicked on {}", hex(&input));
            }
        }
    }
    totals.print(&arguments, seeds.len(), start.elapsed());
    Ok(if totals.panics == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut out = Arguments { executions: 1_000_000, seed: 1 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a number"))?;
        let value = value.parse().with_context(|| format!("{word} {value}"))?;
        match word.as_str() {
            "--executions" => out.executions = value,
            "--seed" => out.seed = value,
            _ => bail!("unknown argument {word}; known are --executions N and --seed N"),
        }
    }
    Ok(out)
}

/// The corpus in the order of its file names, so that a seed means the same run everywhere.
fn seeds() -> anyhow::Result<Vec<Vec<u8>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wire");
    let files = std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut files = files.map(|file| Ok(file?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.sort();
    files.iter().map(|file| Ok(std::fs::read(file)?)).collect()
}

#[derive(Default)]
struct Totals {
    panics: u64,
    accepted: u64,
    routes: u64,
    withdrawn: u64,
    discarded: u64,
    resets: BTreeMap<(u8, u8), u64>,
    slowest: Duration,
}

impl Totals {
    fn count(&mut self, outcome: &wire::Outcome) {
        self.accepted += u64::from(outcome.accepted);
        self.routes += u64::from(outcome.routes);
        self.withdrawn += u64::from(outcome.withdrawn);
        self.discarded += u64::from(outcome.discarded);
        if let Some(codes) = outcome.reset {
            *self.resets.entry(codes).or_default() += 1;
        }
    }

    fn print(&self, arguments: &Arguments, seeds: usize, elapsed: Duration) {
        println!(
            "executions {}, panics {}, seed {}, corpus {seeds} files, {:.1} s",
            arguments.executions,
            self.panics,
            arguments.seed,
            elapsed.as_secs_f64()
        );
        println!(
            "messages accepted {}, with routes {}, treated as withdrawn {}, attributes discarded {}",
            self.accepted, self.routes, self.withdrawn, self.discarded
        );
        let resets: Vec<_> =
            self.resets.iter().map(|((code, sub), n)| format!("{code}/{sub}: {n}")).collect();
        println!("resets {}", resets.join(", "));
        println!("slowest execution {:.2} ms", self.slowest.as_secs_f64() * 1000.0);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
