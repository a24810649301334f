# The image: two binaries, the glibc files that the helper needs, and nothing else. See scripts/build-static.sh.
#
#   docker build -f scratch.Dockerfile -t agent-net .
#       builds the binaries in a Rust container
#   scripts/build-static.sh && docker build -f scratch.Dockerfile --build-arg SOURCE=prebuilt -t agent-net .
#       packs dist/rootfs without pulling an image
#   docker buildx build -f scratch.Dockerfile --platform linux/amd64,linux/arm64 -t NAME --push .
#       for both architectures. The Rust container always runs on this machine's architecture and cross-builds for the
#       other one, since an emulated compiler takes ten times as long
#   scripts/build-static.sh --arch arm64 && docker build -f scratch.Dockerfile --platform linux/arm64 \
#       --build-arg SOURCE=prebuilt -t agent-net:arm64 .
#       packs dist/rootfs-arm64, on an amd64 machine
#
# A build in the Rust container does not see git. To name the commit in `--version`, and to give all files its time, add
#   --build-arg COMMIT="$(git rev-parse HEAD | cut -c 1-12)" --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
#
# /usr/share/sbom/agent-net.cdx.json lists the contents with versions.
#
# All need BuildKit, which skips the unused stages: set DOCKER_BUILDKIT=1 before Docker 23.

ARG SOURCE=build

FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG BUILDARCH
ARG TARGETARCH
RUN apt-get update \
    && apt-get install -y --no-install-recommends musl-tools \
        $([ "$BUILDARCH" = "$TARGETARCH" ] || echo "crossbuild-essential-$TARGETARCH qemu-user-static") \
    && rm -rf /var/lib/apt/lists/*
RUN cpu=$([ "$TARGETARCH" = arm64 ] && echo aarch64 || echo x86_64) \
    && rustup target add "$cpu-unknown-linux-musl" "$cpu-unknown-linux-gnu"
WORKDIR /agent-net
COPY Cargo.toml Cargo.lock build.rs ./
COPY scripts/build-static.sh scripts/
COPY scripts/build-static scripts/build-static
COPY stubs stubs
COPY src src
ARG COMMIT=
ARG SOURCE_DATE_EPOCH=
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/agent-net/target,id=agent-net-$BUILDARCH-$TARGETARCH \
    AGENT_NET_COMMIT=$COMMIT scripts/build-static.sh --arch "$TARGETARCH" && mv dist/rootfs* /rootfs

# What build-static.sh has made for the target: it names the file system of another architecture after it.
FROM scratch AS own
COPY dist/rootfs /rootfs
FROM scratch AS other
ARG TARGETARCH
COPY dist/rootfs-$TARGETARCH /rootfs
FROM own AS amd64-on-amd64
FROM own AS arm64-on-arm64
FROM other AS arm64-on-amd64
FROM other AS amd64-on-arm64
FROM ${TARGETARCH}-on-${BUILDARCH} AS prebuilt

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
