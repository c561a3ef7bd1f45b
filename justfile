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

# The binaries of a release with their SHA-256 sums, into target/release-files: stripped, and the same from any directory.
dist:
    .ci/dist target/release-files

# What takes long: an upgrade from the baseline, a soak of half an hour on each database, two builds that must be equal, their
# SBOM, both services under systemd, and an image.
nightly:
    .ci/nightly

# Writes docs/SETTINGS.md and the examples of deploy/systemd from the command lines, and the table of audit actions in
# docs/OPERATIONS.md from their list.
settings:
    UPDATE=1 cargo test --workspace --test e2e -- settings
