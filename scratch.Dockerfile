# The image: two binaries, the glibc files that the helper needs, and nothing else. See scripts/build-static.sh.
#
#   docker build -f scratch.Dockerfile -t agent-net .
#       builds the binaries in a Rust container
#   scripts/build-static.sh && docker build -f scratch.Dockerfile --build-arg SOURCE=prebuilt -t agent-net .
#       packs this machine's dist/rootfs without pulling an image
#   docker buildx build -f scratch.Dockerfile --platform linux/amd64,linux/arm64 -t NAME --push .
#       for both architectures
#
# /usr/share/sbom/agent-net.cdx.json lists the contents with versions.
#
# All need BuildKit, which skips the unused stage: set DOCKER_BUILDKIT=1 before Docker 23.

ARG SOURCE=build

FROM rust:1.95-bookworm AS build
ARG TARGETARCH
RUN apt-get update \
    && apt-get install -y --no-install-recommends musl-tools \
    && rm -rf /var/lib/apt/lists/*
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /agent-net
COPY Cargo.toml Cargo.lock build.rs ./
COPY scripts/build-static.sh scripts/
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/agent-net/target,id=agent-net-$TARGETARCH \
    scripts/build-static.sh && mv dist/rootfs /rootfs

FROM scratch AS prebuilt
COPY dist/rootfs /rootfs

FROM ${SOURCE} AS rootfs

FROM scratch
LABEL org.opencontainers.image.title="agent-net" \
      org.opencontainers.image.description="GPU health worker for Livepeer BYOC: reports whether the GPUs next to Ollama are present and healthy" \
      org.opencontainers.image.licenses="MIT"
COPY --from=rootfs /rootfs /
# Requests all GPUs and NVML from the NVIDIA runtime. Other runtimes ignore them.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility
# Numeric, so that Kubernetes can verify that it is not root.
USER 65532:65532
EXPOSE 9876
# The exec form, since the image has no shell.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/agent-net", "health"]
ENTRYPOINT ["/agent-net"]
