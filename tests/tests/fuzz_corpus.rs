//! Every input that a fuzzer ever found interesting, replayed; and a short deterministic run.

use std::path::Path;

use tests::fuzz::manifests as fuzz_manifests;
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

fn manifests() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/manifests");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|f| f.path()).collect();
    files.sort();
    files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
}

#[test]
fn manifests_corpus_is_survived_and_reaches_every_kind_of_answer() {
    let corpus = manifests();
    assert!(corpus.len() >= 5, "the corpus has {} files", corpus.len());
    let outcomes: Vec<_> = corpus.iter().map(|input| fuzz_manifests::run(input)).collect();
    let sum =
        |count: fn(&fuzz_manifests::Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    assert!(sum(|o| o.good) >= 8, "{outcomes:?}");
    assert_eq!(sum(|o| o.salvaged), 3, "{outcomes:?}");
    assert_eq!(sum(|o| o.peers), 2, "{outcomes:?}");
    assert!(sum(|o| o.policies) >= 4, "{outcomes:?}");
    let codes: std::collections::BTreeSet<u16> =
        outcomes.iter().flat_map(|o| o.codes.iter().copied()).collect();
    for code in [1001, 1002, 1003, 1004, 1010, 1011] {
        assert!(codes.contains(&code), "{code} is not in {codes:?}");
    }
}

#[test]
fn mutations_of_manifests_are_survived() {
    let corpus = manifests();
    let mut random = Random::new(11);
    let mut reached = std::collections::BTreeSet::new();
    let mut salvaged = 0;
    for _ in 0..3_000 {
        let input = &corpus[random.below(corpus.len())];
        let other = &corpus[random.below(corpus.len())];
        let mutated = fuzz_manifests::mutate(input, other, &mut random);
        let outcome = fuzz_manifests::run(&mutated);
        salvaged += outcome.salvaged;
        reached.extend(outcome.codes);
    }
    assert!(salvaged > 100, "{salvaged}");
    for code in [1001, 1002, 1003, 1004, 1005, 1010, 1011] {
        assert!(reached.contains(&code), "{code} was never reached: {reached:?}");
    }
}
