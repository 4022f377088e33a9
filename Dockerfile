# Two base images, named here so that a machine without a registry can bring its own, and a release can name
# them by digest (docs/deploy.md says how).
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# All but the program: `--target runtime`, for one that was built elsewhere.
FROM ${RUNTIME_IMAGE} AS runtime
LABEL org.opencontainers.image.title="Procession" \
      org.opencontainers.image.description="HTTP job runner" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# A user of its own with a name and a home: jobs run as it, and many programs ask for both. The volume is for any uid with
# the group 0, as platforms choose one; in it, the service makes the state directory, which is its uid's alone.
RUN echo 'procession:x:65532:65532:Procession:/var/lib/procession:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'procession:x:65532:' >>/etc/group \
    && install -d -o 65532 -g 0 -m 0770 /var/lib/procession
# Read by `serve`, by `health` and by the client commands under `docker exec` alike.
ENV PROCESSION_LISTEN=0.0.0.0:8080 \
    PROCESSION_STATE_DIR=/var/lib/procession/state \
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

FROM ${BUILD_IMAGE} AS build
# Makes the binary name the crates that it is built of, for scanners. The same version is in the Makefile.
RUN cargo install --locked cargo-auditable --version 0.7.7 && rm -rf "${CARGO_HOME:-$HOME/.cargo}/registry"
WORKDIR /src
# The dependencies first, against empty crates: they are compiled again only when they change.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src/job/Cargo.toml src/job/
COPY src/linux/Cargo.toml src/linux/
COPY src/protocol/Cargo.toml src/protocol/
COPY src/store/Cargo.toml src/store/
COPY src/engine/Cargo.toml src/engine/
COPY src/manager/Cargo.toml src/manager/
COPY src/mcp/Cargo.toml src/mcp/
COPY src/cluster/Cargo.toml src/cluster/
COPY src/ledger/Cargo.toml src/ledger/
COPY src/http/Cargo.toml src/http/
COPY src/client/Cargo.toml src/client/
COPY fuzz/targets/Cargo.toml fuzz/targets/
RUN for crate in src/*/ fuzz/targets/; do : >"$crate/lib.rs"; done && echo 'fn main() {}' >src/main.rs \
    && cargo auditable build --profile dist --locked --bin procession \
    && rm -rf target/dist/.fingerprint/procession-* target/dist/procession
COPY build.rs openapi.yaml README.md ./
COPY fuzz/targets fuzz/targets
COPY src src
COPY web/dist web/dist
RUN cargo auditable build --profile dist --locked --bin procession

FROM runtime
COPY --from=build /src/target/dist/procession /usr/local/bin/procession
