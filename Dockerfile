# Two base images, named here so that a machine without a registry can bring its own, and a release can name
# them by digest (README.md says how).
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
# Makes the binary name the crates that it is built of, for scanners. The same version is in the Makefile.
RUN cargo install --locked cargo-auditable --version 0.7.7 && rm -rf "${CARGO_HOME:-$HOME/.cargo}/registry"
WORKDIR /src
# The dependencies first, against an empty crate: they are compiled again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && : >src/lib.rs \
    && cargo auditable build --release --locked --bin procession \
    && rm -rf src target/release/.fingerprint/procession-* target/release/procession
COPY openapi.yaml README.md ./
COPY src src
COPY web/dist web/dist
RUN cargo auditable build --release --locked --bin procession

FROM ${RUNTIME_IMAGE}
# A user of its own with a name and a home: jobs run as it, and many programs ask for both.
RUN echo 'procession:x:65532:65532:Procession:/var/lib/procession:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'procession:x:65532:' >>/etc/group \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/procession
COPY --from=build /src/target/release/procession /usr/local/bin/procession
# Read by `serve`, by `health` and by the client commands under `docker exec` alike.
ENV PROCESSION_LISTEN=0.0.0.0:8080 \
    PROCESSION_STATE_DIR=/var/lib/procession \
    PROCESSION_ON_SHUTDOWN=stop
USER 65532:65532
WORKDIR /var/lib/procession
VOLUME ["/var/lib/procession"]
EXPOSE 8080
# The first process is a supervisor that reaps every orphan: no --init is needed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/procession", "health"]
ENTRYPOINT ["/usr/local/bin/procession"]
CMD ["serve"]
