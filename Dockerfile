# Finishline in a container: one binary, no shell, not root.
#
#   docker build -t finishline .
#
# The API listens on all interfaces here, by plain http. Without API keys the service makes one in the
# volume (finishline.key). The volume is all that is written, so `docker run --read-only` works; the
# demo keeps its temporary folder there too. It needs to be told its public URL: see "Docker" in README.md.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# The dependencies, built against a stub: this layer is made again only when they change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY native native
# Cargo wants every target of the manifest to be there, the benches included.
RUN mkdir -p src benches/hostile benches/speed \
    && echo 'fn main() {}' | tee src/main.rs benches/files.rs benches/hostile/main.rs benches/parts.rs benches/speed/main.rs > benches/chaos.rs \
    && touch src/lib.rs \
    && cargo build --profile dist --locked \
    && rm -r src
COPY config.example.toml ./
COPY migrations migrations
COPY src src
# A copied file keeps its time, which may be older than the stub's build.
RUN touch src/main.rs src/lib.rs build.rs \
    && cargo build --profile dist --locked \
    && mkdir -m 0700 /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/dist/finishline /usr/local/bin/finishline
COPY --from=build --chown=65532:65532 /data /var/lib/finishline
# A finishline.toml mounted here is found by every command, the health check included.
WORKDIR /etc/finishline
ENV FINISHLINE__DATABASE__URL=sqlite:///var/lib/finishline/finishline.db \
    FINISHLINE__CALLBACKS__LISTEN=0.0.0.0:8085 \
    FINISHLINE__API__LISTEN=0.0.0.0:8086 \
    FINISHLINE__LOG__FORMAT=json \
    TMPDIR=/var/lib/finishline
USER 65532:65532
VOLUME /var/lib/finishline
# Callbacks (for the internet), API (for your software alone).
EXPOSE 8085 8086
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s CMD ["finishline", "healthcheck"]
ENTRYPOINT ["finishline"]
CMD ["serve"]
