# syntax=docker/dockerfile:1
# Two stages: dependencies and binary are built with what Debian and Rust ship, the image holds one binary.

FROM rust:1.95.0-slim-trixie AS build
# aws-lc-rs and SQLite are compiled from C: gcc and the libc headers, nothing else.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# The dependencies are a layer of their own: it changes with the lock file, not with every line of ours.
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY .cargo ./.cargo
# Benches, examples and tests stay outside: what names them would be missed.
RUN awk '/^\[\[(bench|example|test)\]\]/ { out = 1; next } /^\[/ { out = 0 } !out' Cargo.toml > Cargo.lean \
    && mv Cargo.lean Cargo.toml \
    && mkdir src \
    && echo '//! (stand-in)' > src/lib.rs \
    && echo '//! (stand-in)' > src/main.rs && echo 'fn main() {}' >> src/main.rs \
    && sed -i '/^components/d' rust-toolchain.toml \
    && cargo build --release --locked \
    && rm -rf src target/release/stagedoor target/release/deps/*stagedoor* target/release/.fingerprint/stagedoor-*

# What `stagedoor --version` says: docker build --build-arg BUILD_COMMIT="$(git rev-parse --short=12 HEAD)" …
ARG BUILD_COMMIT=
ENV BUILD_COMMIT=$BUILD_COMMIT
COPY openapi.yaml ./
COPY migrations ./migrations
COPY src ./src
RUN cargo build --release --locked \
    && mkdir -p /image/data \
    && cp target/release/stagedoor /image/stagedoor

# glibc, CA certificates and nothing to log in with.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build --chown=0:0 --chmod=0755 /image/stagedoor /usr/local/bin/stagedoor
# Database and, unless MASTER_KEY_FILE points elsewhere, the master key. Keep lock and key apart: mount the key
# from a secret store and set STAGEDOOR_MASTER_KEY_FILE.
COPY --from=build --chown=65532:65532 /image/data /data
ENV STAGEDOOR_DATA_DIR=/data \
    STAGEDOOR_LISTEN=0.0.0.0:8080
VOLUME /data
USER 65532:65532
WORKDIR /data
EXPOSE 8080
# The binary asks itself: there is no shell and no curl here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["stagedoor", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["stagedoor"]
CMD ["serve"]

# Run it with a read-only root file system; only the volume is written to:
#   docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges -v stagedoor:/data \
#     -e STAGEDOOR_ISSUER=https://stagedoor.example.com stagedoor init
#   docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges -v stagedoor:/data -p 127.0.0.1:8080:8080 \
#     -e STAGEDOOR_ISSUER=https://stagedoor.example.com stagedoor
