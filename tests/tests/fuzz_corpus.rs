//! Every input that a fuzzer ever found interesting, replayed; and a short deterministic run.

use std::path::Path;

use tests::fuzz::mutate::{Random, mutate};
use tests::fuzz::wire::{self, Outcome};

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wire");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            Some((name, std::fs::read(file.path()).ok()?))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn wire_corpus_is_survived() {
    let corpus = corpus();
    assert!(corpus.len() >= 20, "the corpus has {} files", corpus.len());
    let outcomes: Vec<_> = corpus.iter().map(|(_, input)| wire::run(input)).collect();
    // A corpus of nothing but refusals would be a poor one.
    assert!(outcomes.iter().any(|o| o.routes > 0));
    assert!(outcomes.iter().any(|o| o.withdrawn > 0));
    assert!(outcomes.iter().any(|o| o.reset.is_some()));
}

#[test]
fn mutations_of_the_corpus_are_survived_and_reach_every_disposition() {
    let corpus = corpus();
    let mut random = Random::new(7);
    let mut reached = Outcome::default();
    let mut resets = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let (_, input) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        let outcome = wire::run(&mutate(input, other, &mut random));
        reached.routes += outcome.routes;
        reached.withdrawn += outcome.withdrawn;
        reached.discarded += outcome.discarded;
        resets.extend(outcome.reset);
    }
    assert!(reached.routes > 1000, "{reached:?}");
    assert!(reached.withdrawn > 1000, "{reached:?}");
    assert!(reached.discarded > 1000, "{reached:?}");
    for codes in [(1, 2), (2, 0), (3, 1), (3, 9), (3, 10)] {
        assert!(resets.contains(&codes), "{codes:?} was never reached: {resets:?}");
    }
}

#[test]
fn same_seed_gives_the_same_mutations() {
    let corpus = corpus();
    let run = |seed| {
        let mut random = Random::new(seed);
        let mut all = Vec::new();
        for (_, input) in &corpus {
            all.push(mutate(input, input, &mut random));
        }
        all
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
