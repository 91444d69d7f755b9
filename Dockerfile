# Drover's image: the static binary, and the certificates that it needs to
# trust an object store. Most users take the binary out of it:
#
#   COPY --from=drover /drover /usr/bin/drover
#
# GO_IMAGE is any image that has Go, the version that go.mod asks for.
ARG GO_IMAGE=golang:1.26

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X drover/internal/app.Version=${VERSION}" -o /drover ./cmd/drover

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /drover /drover
ENTRYPOINT ["/drover"]
