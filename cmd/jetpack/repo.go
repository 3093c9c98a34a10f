package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

func newRepoCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "repo", Short: "Publish images for discovery",
		Long: "Publish signed images in a directory that any web server can serve: whoever names\n" +
			"them fetches them from there. None of this needs root or an initialized root.",
		RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(
		newRepoInitCommand(c), newRepoKeygenCommand(c), newRepoAddCommand(c), newRepoRmCommand(c),
		newRepoListCommand(c), newRepoServeCommand(c), newRepoVerifyCommand(c),
	)
	return cmd
}

func newRepoInitCommand(c *cli) *cobra.Command {
	var o repository.Options
	cmd := &cobra.Command{
		Use:   "init --prefix NAME DIR",
		Short: "Make a directory a repository, or its pages anew",
		Args:  exactly(1, "one DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := repository.Open(args[0])
			if o.Prefix == "" && errors.Is(err, repository.ErrNone) {
				return usagef("--prefix says what the names of the images begin with, such as example.com/team")
			}
			if o.Prefix == "" && err == nil {
				o = r.Options
			}
			if r, err = repository.Init(args[0], o); err != nil {
				return err
			}
			c.notice(fmt.Sprintf("%s: a repository for images %s and below", args[0], r.Prefix))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Prefix, "prefix", "", "what the `NAME` of each image begins with: a host, or a host and a path")
	f.StringVar(&o.URL, "url", "", "the https `URL` at which DIR is served (default the root of the prefix's host)")
	return cmd
}

// passphrase is where a passphrase comes from.
type passphrase struct{ file string }

func (p *passphrase) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "passphrase-file", "", "take the key's passphrase from the first line of `FILE` (- for standard input)")
}

// read gives the passphrase: from the file, else from the terminal.
func (p *passphrase) read(c *cli, question string) ([]byte, error) {
	switch {
	case p.file == "-":
		return firstLine(c.stdin)
	case p.file != "":
		f, err := os.Open(p.file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		return firstLine(f)
	case !c.asks():
		return nil, usagef("there is no terminal to ask for the passphrase on; use --passphrase-file")
	}
	fmt.Fprint(c.stderr, question)
	secret, err := term.ReadPassword(int(c.stdin.Fd()))
	fmt.Fprintln(c.stderr)
	return secret, err
}

func firstLine(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, 4096))
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), err
}

func newRepoKeygenCommand(c *cli) *cobra.Command {
	var name, email string
	var secret passphrase
	var bare bool
	cmd := &cobra.Command{
		Use:   "keygen --name NAME --email ADDRESS FILE",
		Short: "Make a key to sign images with; print its fingerprint",
		Long: "Make an Ed25519 OpenPGP key: the secret key in FILE, which only you can read, the public\n" +
			"one in FILE.pub. Print its fingerprint, by which others know it.",
		Args: exactly(1, "one FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if name == "" || email == "" {
				return usagef("--name and --email say whose key it is")
			}
			if bare && secret.file != "" {
				return usagef("--no-passphrase: no --passphrase-file beside it")
			}
			var phrase []byte
			if !bare {
				var err error
				if phrase, err = c.newPassphrase(&secret); err != nil {
					return err
				}
			}
			return c.runKeygen(args[0], name, email, phrase)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the owner's `NAME`")
	f.StringVar(&email, "email", "", "the owner's `ADDRESS`")
	f.BoolVar(&bare, "no-passphrase", false, "do not protect the key: whoever reads FILE can sign")
	secret.add(cmd)
	return cmd
}

// newPassphrase asks twice.
func (c *cli) newPassphrase(p *passphrase) ([]byte, error) {
	phrase, err := p.read(c, "Passphrase for the new key: ")
	if err == nil && len(phrase) == 0 {
		err = usagef("the passphrase is empty; --no-passphrase leaves the key unprotected")
	}
	if err != nil || p.file != "" {
		return phrase, err
	}
	again, err := p.read(c, "Once more: ")
	if err == nil && !bytes.Equal(phrase, again) {
		err = errors.New("the passphrases differ")
	}
	return phrase, err
}

func (c *cli) runKeygen(file, name, email string, phrase []byte) error {
	secret, public, err := repository.Keygen(name, email, phrase)
	if err != nil {
		return err
	}
	keys, err := trust.ReadKeys(bytes.NewReader(public))
	if err != nil {
		return err
	}
	if err := writeNew(file, secret, 0o600); err != nil {
		return err
	}
	if err := writeNew(file+".pub", public, 0o644); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	_, err = fmt.Fprintln(c.stdout, strings.ToUpper(keys[0].Fingerprint))
	return err
}

// writeNew writes a file that is not there yet.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// signing is who signs.
type signing struct {
	keyFile, gpgUser string
	secret           passphrase
}

func (s *signing) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.keyFile, "sign", "", "sign with the secret key in `KEYFILE`, armoured OpenPGP")
	f.StringVar(&s.gpgUser, "gpg", "", "have gpg and its agent sign with the key of `USER`")
	s.secret.add(cmd)
}

// check comes before anything is opened.
func (s *signing) check() error {
	if (s.keyFile == "") == (s.gpgUser == "") {
		return usagef("say who signs: with --sign KEYFILE ('jetpack repo keygen' makes one), or --gpg USER")
	}
	return nil
}

func (s *signing) signer(c *cli) (repository.Signer, error) {
	if s.gpgUser != "" {
		return repository.GPG(s.gpgUser), nil
	}
	return repository.KeyFile(s.keyFile, func() ([]byte, error) {
		return s.secret.read(c, fmt.Sprintf("Passphrase of %s: ", s.keyFile))
	})
}

func newRepoAddCommand(c *cli) *cobra.Command {
	var by signing
	var replace bool
	cmd := &cobra.Command{
		Use:   "add {--sign KEYFILE | --gpg USER} DIR IMAGE...",
		Short: "Sign images and publish them",
		Long: "Sign images, which are ACI files, and publish them. Their names, versions, os and arch\n" +
			"are those of their manifests. The highest version of a name is its latest, too.",
		Args: atLeast(2, "DIR and IMAGE..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := by.check(); err != nil {
				return err
			}
			r, err := openRepository(args[0])
			if err != nil {
				return err
			}
			signer, err := by.signer(c)
			if err != nil {
				return err
			}
			o := repository.AddOptions{Limits: limits(c.cfg), Replace: replace}
			for _, path := range args[1:] {
				if err := c.publish(cmd.Context(), r, path, signer, o); err != nil {
					return err
				}
			}
			return nil
		},
	}
	by.add(cmd)
	cmd.Flags().BoolVar(&replace, "replace", false, "replace what is published under the same name and version")
	return cmd
}

func (c *cli) publish(ctx context.Context, r *repository.Repository, path string, signer repository.Signer, o repository.AddOptions) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e, err := r.Add(ctx, f, signer, o)
	if err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	_, err = fmt.Fprintln(c.stdout, entryRef(e))
	return err
}

func entryRef(e repository.Entry) manifest.Ref {
	return manifest.Ref{Name: e.Name, Labels: map[string]string{"version": e.Version, "os": e.OS, "arch": e.Arch}}
}

// openRepository opens one that is there.
func openRepository(dir string) (*repository.Repository, error) {
	r, err := repository.Open(dir)
	if errors.Is(err, repository.ErrNone) {
		return nil, fmt.Errorf("%w; 'jetpack repo init' makes one", err)
	}
	return r, err
}

func newRepoRmCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "rm DIR NAME...",
		Short: "Take images back: all that NAME[:VERSION][,LABEL=VALUE]... means",
		Args:  atLeast(2, "DIR and NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := openRepository(args[0])
			if err != nil {
				return err
			}
			for _, name := range args[1:] {
				ref, err := parseName(name)
				if err != nil {
					return err
				}
				removed, err := r.Remove(cmd.Context(), ref)
				if err != nil {
					return err
				}
				for _, e := range removed {
					if _, err := fmt.Fprintln(c.stdout, entryRef(e)); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// entryView is a published image.
type entryView struct {
	ID        string            `json:"id" doc:"image ID"`
	Name      string            `json:"name" doc:"name"`
	Labels    map[string]string `json:"labels" doc:"labels, version, os and arch among them"`
	Latest    bool              `json:"latest" doc:"whether it is what the name means without a version"`
	File      string            `json:"file" doc:"its file, in the repository's directory"`
	Size      int64             `json:"size" doc:"bytes of the file"`
	Digest    string            `json:"digest" doc:"\"sha512-\" and the hash of the file, hexadecimal"`
	Signer    string            `json:"signer" doc:"fingerprint of the key that signed it, lower-case hexadecimal"`
	Published time.Time         `json:"published" doc:"when it was published"`
}

func newRepoListCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:     "list DIR",
		Aliases: []string{"ls"},
		Short:   "List what is published",
		Args:    exactly(1, "one DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := openRepository(args[0])
			if err != nil {
				return err
			}
			entries, err := r.List(cmd.Context())
			if err != nil {
				return err
			}
			rows := make([]row, len(entries))
			for i, e := range entries {
				latest := ""
				if e.Latest {
					latest = "latest"
				}
				rows[i] = row{e.ID, []string{
					e.Name, e.Version, e.OS, e.Arch, orDash(latest), units.BytesSize(float64(e.Size)), ago(e.Published), e.Signer,
				}, entryView{e.ID, e.Name, e.Labels, e.Latest, e.File, e.Size, e.Digest, e.Signer, e.Published}}
			}
			return o.print(c.stdout, []string{"NAME", "VERSION", "OS", "ARCH", "ALIAS", "SIZE", "PUBLISHED", "SIGNER"}, rows)
		},
	}
	o.add(cmd)
	return cmd
}

type serveOptions struct{ listen, cert, key, localCA string }

func newRepoServeCommand(c *cli) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve {--cert FILE --key FILE | --local-ca DIR} DIR",
		Short: "Serve a repository over https, until interrupted",
		Long: "Serve a repository over https, until interrupted; requests are logged on standard output.\n" +
			"With --local-ca, to try things out, an authority is made on the spot; its certificate is\n" +
			"DIR/ca.pem, for discovery.ca-file of those that are to trust it.",
		Args: exactly(1, "one DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.runServe(cmd.Context(), o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", ":443", "`ADDRESS` and port to listen on")
	f.StringVar(&o.cert, "cert", "", "the server's certificate, a PEM `FILE` with the chain")
	f.StringVar(&o.key, "key", "", "its private key, a PEM `FILE`")
	f.StringVar(&o.localCA, "local-ca", "", "make a certificate for localhost and the repository's host; keep it in `DIR`")
	return cmd
}

func (c *cli) runServe(ctx context.Context, o serveOptions, dir string) error {
	if (o.localCA == "") == (o.cert == "" || o.key == "") {
		return usagef("give a certificate with --cert and --key, or have one made with --local-ca")
	}
	r, err := openRepository(dir)
	if err != nil {
		return err
	}
	cert, err := certificate(o, r)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           repository.Handler(dir, c.stdout),
		ErrorLog:          log.New(lines(c.notice), "", 0), // of handshakes that failed, for one
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
	}
	c.notice("serving " + dir + " on https://" + listener.Addr().String())
	stopped := context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(wait) // who still downloads then is cut off
	})
	defer stopped()
	err = server.ServeTLS(listener, "", "")
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return err
}

// lines passes on each line that is written to it, in one call.
type lines func(line string)

func (l lines) Write(p []byte) (int, error) {
	l(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func certificate(o serveOptions, r *repository.Repository) (tls.Certificate, error) {
	if o.localCA == "" {
		return tls.LoadX509KeyPair(o.cert, o.key)
	}
	host, _, _ := strings.Cut(r.Prefix, "/")
	cert, _, err := repository.LocalCA(o.localCA, []string{"localhost", "127.0.0.1", "::1", host})
	return cert, err
}
