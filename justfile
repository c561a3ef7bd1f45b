# Formatting, lints and documentation, as CI checks them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# All tests; those that need PostgreSQL or grpcurl say so where these are missing.
test:
    cargo test --workspace

# What issuing and checking tokens costs, beside what the machine could do; about twenty-five minutes.
bench *options:
    cargo bench --bench issuance -- {{options}}

# Everything that must hold before a change lands.
ci:
    .ci/run
