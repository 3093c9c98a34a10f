package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

const maxRepositoryIndex = 64 << 20 // bytes

func newRepoVerifyCommand(c *cli) *cobra.Command {
	var waived insecure
	var fingerprints []string
	cmd := &cobra.Command{
		Use:   "verify URL",
		Short: "Fetch all that a repository publishes by discovery, and check it",
		Long: "Fetch all images that the repository at URL publishes, as anybody would who knows their\n" +
			"names only, and check files, names, labels and signatures. The keys are those that\n" +
			"discovery offers, unless --fingerprint says which are right. Prints a line for each\n" +
			"name; exits 1 if anything is wrong.",
		Args: exactly(1, "one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := waived.check(); err != nil {
				return err
			}
			if err := parseFingerprints(fingerprints); err != nil {
				return err
			}
			return c.runRepoVerify(cmd.Context(), args[0], waived, fingerprints)
		},
	}
	waived.add(cmd)
	cmd.Flags().StringArrayVar(&fingerprints, "fingerprint", nil, "accept signatures by the key with that `FINGERPRINT` only; may be repeated")
	return cmd
}

func (c *cli) runRepoVerify(ctx context.Context, location string, waived insecure, fingerprints []string) (err error) {
	client, err := c.httpClient(waived)
	if err != nil {
		return err
	}
	entries, err := repositoryIndex(ctx, client, location)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "jetpack-verify-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	meter, done := c.meter()
	defer done()
	f := &fetch.Fetcher{
		HTTP: client, Discovery: c.discovery(client, waived), Trust: trust.Open(dir + "/keys"), Policy: c.trustPolicy(),
		Downloads: dir + "/downloads", Limits: limits(c.cfg), Insecure: waived,
		Meter: meter, Notice: func(string) {}, Warn: c.warn,
	}
	// The keys are part of what is looked at.
	f.Review = func(_ context.Context, name string, found fetch.Found) error {
		keys := found.Keys
		if len(fingerprints) > 0 {
			keys = withFingerprint(keys, fingerprints)
		}
		return f.Trust.Add(name, keys...)
	}
	wrong := 0
	names, digests := published(entries)
	for i, ref := range names {
		line := "ok"
		if err := f.Check(ctx, ref, digests[i]); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			line = oneLine(err)
			wrong++
		}
		if _, err := fmt.Fprintf(c.stdout, "%s: %s\n", ref, line); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%s: %d of %d names do not bring what they should", location, wrong, len(names))
	}
	return nil
}

// published are the names under which images can be had, the latest also without a
// version, and the digests of the files.
func published(entries []repository.Entry) (names []manifest.Ref, digests []string) {
	for _, e := range entries {
		names, digests = append(names, entryRef(e)), append(digests, e.Digest)
		if e.Latest {
			latest := entryRef(e)
			delete(latest.Labels, "version")
			names, digests = append(names, latest), append(digests, e.Digest)
		}
	}
	return names, digests
}

// repositoryIndex reads what a repository says that it publishes.
func repositoryIndex(ctx context.Context, client *httpclient.Client, location string) (_ []repository.Entry, err error) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return nil, usagef("%s: want the URL of a repository", location)
	}
	u = u.JoinPath("index.json")
	resp, err := client.Get(ctx, httpclient.Request{URL: u, MaxBytes: maxRepositoryIndex, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var index struct {
		Images []repository.Entry `json:"images"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("%s: not the index of a repository: %s", u.Redacted(), strings.TrimPrefix(err.Error(), "json: "))
	}
	return index.Images, nil
}
