# jetpack's build. 'make demo' and 'make test' install what is missing on Debian.

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD = -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

export CGO_ENABLED ?= 0

.PHONY: build install demo test generate lint clean

build:
	$(GO) build $(GOFLAGS_BUILD) -o bin/jetpack ./cmd/jetpack

# Installs what 'make build' made, and the generated pages of share/.
install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/jetpack
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 0755 bin/jetpack $(DESTDIR)$(PREFIX)/bin/jetpack
	install -m 0644 share/man/man1/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 0644 share/man/man5/*.5 $(DESTDIR)$(PREFIX)/share/man/man5/
	install -m 0644 share/completions/jetpack.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/jetpack
	install -m 0644 share/completions/_jetpack $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_jetpack
	install -m 0644 share/completions/jetpack.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/jetpack.fish

demo:
	./test/demo.sh

test:
	./test/test.sh

# Rewrites what is generated from the code: manual pages, completions, tables in docs/.
generate: build
	rm -rf share/man share/completions
	bin/jetpack generate .

clean:
	rm -rf bin .cache
