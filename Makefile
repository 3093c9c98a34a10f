# jetpack's build, for GNU make and BSD make. 'make demo' and 'make test' install what
# is missing on Debian.

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
BIN      ?= bin/jetpack
MDC      ?= bin/ac-mdc

# The system to build and to install for: 'make install GOOS=freebsd DESTDIR=/tmp/stage'.
SYSTEM   != uname -s | tr A-Z a-z
GOOS     ?= $(SYSTEM)
COMMIT   != git describe --tags --always --dirty 2>/dev/null || echo devel
VERSION  ?= $(COMMIT)
GOFLAGS_BUILD = -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build mdc mdc-linux mdc-freebsd install install-mdc install-mdc-linux install-mdc-freebsd install-share install-linux install-freebsd demo test test-zfs test-freebsd generate lint clean

# Without cgo: a child that extracts images could not give up its capabilities (docs/security.md).
build: mdc
	CGO_ENABLED=0 GOOS=$(GOOS) $(GO) build $(GOFLAGS_BUILD) -o $(BIN) ./cmd/jetpack

# What apps ask the metadata service with, for each system whose apps the host can run.
mdc: mdc-$(GOOS)

mdc-freebsd: mdc-linux
	CGO_ENABLED=0 GOOS=freebsd $(GO) build $(GOFLAGS_BUILD) -o $(MDC).freebsd ./cmd/ac-mdc

mdc-linux:
	CGO_ENABLED=0 GOOS=linux $(GO) build $(GOFLAGS_BUILD) -o $(MDC).linux ./cmd/ac-mdc

# Installs what 'make build' made, and what is in share/.
install: build install-mdc install-share
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/jetpack

install-mdc: install-mdc-$(GOOS)

install-mdc-freebsd: install-mdc-linux
	install -m 0755 $(MDC).freebsd $(DESTDIR)$(PREFIX)/libexec/jetpack/ac-mdc.freebsd

install-mdc-linux:
	install -d $(DESTDIR)$(PREFIX)/libexec/jetpack
	install -m 0755 $(MDC).linux $(DESTDIR)$(PREFIX)/libexec/jetpack/ac-mdc.linux

install-share: install-$(GOOS)
	install -d $(DESTDIR)$(PREFIX)/share/jetpack
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 0644 share/jetpack.image.mk $(DESTDIR)$(PREFIX)/share/jetpack/jetpack.image.mk
	install -m 0644 share/jetpack.make $(DESTDIR)$(PREFIX)/share/jetpack/jetpack.make
	install -m 0644 share/man/man1/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 0644 share/man/man5/*.5 $(DESTDIR)$(PREFIX)/share/man/man5/
	install -m 0644 share/completions/jetpack.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/jetpack
	install -m 0644 share/completions/_jetpack $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_jetpack
	install -m 0644 share/completions/jetpack.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/jetpack.fish

# The scripts and units name their files below /usr/local.
install-linux:
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,/usr/local/,$(PREFIX)/,g' share/systemd/jetpack-mds.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/jetpack-mds.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/jetpack-mds.service

install-freebsd:
	install -d $(DESTDIR)$(PREFIX)/etc/rc.d $(DESTDIR)$(PREFIX)/etc/newsyslog.conf.d $(DESTDIR)$(PREFIX)/etc/jetpack
	sed 's,/usr/local/,$(PREFIX)/,g' share/rc.d/jetpack >$(DESTDIR)$(PREFIX)/etc/rc.d/jetpack
	sed 's,/usr/local/,$(PREFIX)/,g' share/rc.d/jetpack_mds >$(DESTDIR)$(PREFIX)/etc/rc.d/jetpack_mds
	sed 's,/usr/local/,$(PREFIX)/,g' share/newsyslog/jetpack.conf >$(DESTDIR)$(PREFIX)/etc/newsyslog.conf.d/jetpack.conf
	chmod 0755 $(DESTDIR)$(PREFIX)/etc/rc.d/jetpack $(DESTDIR)$(PREFIX)/etc/rc.d/jetpack_mds
	chmod 0644 $(DESTDIR)$(PREFIX)/etc/newsyslog.conf.d/jetpack.conf
	install -m 0644 share/jetpack.toml.sample $(DESTDIR)$(PREFIX)/etc/jetpack/jetpack.toml.sample

demo:
	CGO_ENABLED=0 ./test/demo.sh

test:
	CGO_ENABLED=0 ./test/test.sh

# Runs the suites that storage matters to on a Debian guest with ZFS, which is built once and
# emulated: slowly. 'make test-zfs ZFS_SUITES=./...' runs all (test/guest, test/remote).
ZFS_SUITES ?= ./zfs
test-zfs:
	$(GO) build -o .cache/bin/remote ./test/remote
	./test/guest/run.sh .cache/bin/remote $(ZFS_SUITES)

# Runs all suites on a FreeBSD machine: 'make test-freebsd HOST=ssh://root@host:port [KEY=FILE]'.
FREEBSD_SUITES ?= ./...
test-freebsd:
	$(GO) build -o .cache/bin/remote ./test/remote
	.cache/bin/remote $(FREEBSD_SUITES)

# Rewrites what is generated from the code: manual pages, completions, the sample of the
# configuration, tables in docs/.
generate:
	$(GO) test ./cmd/jetpack -run TestGenerated -update

clean:
	rm -rf bin .cache
