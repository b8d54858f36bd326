//! Manifests: `cargo fuzz run --sanitizer none manifests`.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[path = "../../src/fuzz/manifests.rs"]
mod manifests;
#[expect(dead_code, reason = "only its generator is used here")]
#[path = "../../src/fuzz/mutate.rs"]
mod mutate;

fuzz_target!(|input: &[u8]| {
    let _outcome = manifests::run(input);
});

// One in four mutations is libFuzzer's own, which knows what coverage wants.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(4) {
        return fuzzer_mutate(data, size, max_size);
    }
    let input = data[..size].to_vec();
    let mut random = mutate::Random::new(seed.into());
    let mut mutated = manifests::mutate(&input, &input, &mut random);
    mutated.truncate(max_size);
    data[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
});
