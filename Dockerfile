# A small image without root: the binary, the certificates of public authorities, nothing else of ours.
FROM rust:1.95.0-slim-bookworm AS build
# C and C++ for SQLite, zstd and librdkafka; Perl for its OpenSSL. The certificates go into the image below.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates g++ gcc make perl pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY schemas schemas
COPY benches benches
COPY examples examples
COPY src src
# The manifest names the integration tests; their file must be there, and is not built.
RUN mkdir -p tests/it && touch tests/it/main.rs \
 && cargo build --locked --release --bin highwater --features kafka-tls,s3 \
 && strip target/release/highwater \
 && install -d -o 10001 -g 10001 -m 0700 /image/data /image/snapshots

FROM debian:bookworm-20251229-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /source/target/release/highwater /usr/local/bin/highwater
COPY --from=build --chown=10001:10001 /image/ /
USER 10001:10001
ENV HIGHWATER_DATA=/data HIGHWATER_LISTEN=0.0.0.0:8080 HIGHWATER_ADMIN=0.0.0.0:8081
VOLUME ["/data"]
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["highwater"]
CMD ["serve"]
