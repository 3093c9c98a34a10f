package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

func newTrustCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "trust", Short: "Decide whose signatures vouch for images", RunE: group, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(newTrustAddCommand(c), newTrustListCommand(c), newTrustRmCommand(c))
	return cmd
}

type trustAddOptions struct {
	waived       insecure
	prefix       string
	anyName      bool
	fingerprints []string
}

func newTrustAddCommand(c *cli) *cobra.Command {
	var o trustAddOptions
	cmd := &cobra.Command{
		Use:   "add {--prefix NAME | --any-name} [LOCATION]",
		Short: "Trust keys for images, after a look at them",
		Long: "Trust OpenPGP keys for images whose names are a prefix or below it. LOCATION is a file,\n" +
			"an https URL, or -; without it, the keys that the prefix's own host offers are\n" +
			"discovered. Compare the fingerprint with one that you have from elsewhere: on a\n" +
			"terminal you are asked, else --fingerprint says which keys are meant.",
		Args: atMost(1, "one LOCATION"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.runTrustAdd(cmd.Context(), &o, args) },
	}
	o.waived.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.prefix, "prefix", "", "trust the keys for images of that `NAME` and below it")
	f.BoolVar(&o.anyName, "any-name", false, "trust the keys for all images")
	f.StringArrayVar(&o.fingerprints, "fingerprint", nil, "trust the key with that `FINGERPRINT` without asking; may be repeated")
	return cmd
}

func (o *trustAddOptions) check(args []string) error {
	if err := o.waived.check(); err != nil {
		return err
	}
	if o.anyName == (o.prefix != "") {
		return usagef("say for which images: with --prefix NAME, or --any-name")
	}
	if o.anyName && len(args) == 0 {
		return usagef("a key for all images comes from a LOCATION, not from discovery")
	}
	if o.prefix != "" {
		if ref, err := manifest.ParseRef(o.prefix); err != nil || len(ref.Labels) > 0 {
			return usagef("--prefix %q: want the name of an image, or the beginning of one up to a slash", o.prefix)
		}
	}
	return parseFingerprints(o.fingerprints)
}

// parseFingerprints gives those of --fingerprint the form that keys have them in.
func parseFingerprints(given []string) error {
	for i, fpr := range given {
		parsed, err := trust.ParseFingerprint(fpr)
		if err != nil {
			return usagef("--fingerprint: %v", err)
		}
		given[i] = parsed
	}
	return nil
}

// withFingerprint are the keys with one of the fingerprints.
func withFingerprint(keys []trust.Key, fingerprints []string) []trust.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k trust.Key) bool { return !slices.Contains(fingerprints, k.Fingerprint) })
}

func (c *cli) runTrustAdd(ctx context.Context, o *trustAddOptions, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	if len(o.fingerprints) == 0 && !c.asks() {
		return usagef("there is no terminal to ask on; say with --fingerprint which key is meant")
	}
	if len(args) == 0 && c.cfg.FetchDiscovery == "off" {
		return fmt.Errorf("the configuration permits no discovery: fetch.discovery is off; name a LOCATION of keys")
	}
	h, err := c.open()
	if err != nil {
		return err
	}
	f, done, err := c.fetcher(h, o.waived, false)
	if err != nil {
		return err
	}
	defer done()
	found, err := c.findKeys(ctx, f, o, args)
	if err != nil {
		return err
	}
	missing := slices.Clone(o.fingerprints)
	for _, offer := range found {
		keys := offer.Keys
		if len(o.fingerprints) > 0 {
			keys = withFingerprint(keys, o.fingerprints)
			missing = slices.DeleteFunc(missing, func(fpr string) bool {
				return slices.ContainsFunc(keys, func(k trust.Key) bool { return k.Fingerprint == fpr })
			})
		} else if err := c.reviewKeys(ctx, o.prefix, offer); err != nil {
			return err
		}
		if err := c.addKeys(f.Trust, o.prefix, keys); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s; there is %s", errNoSuchKey, trust.FormatFingerprint(missing[0]), fingerprints(found))
	}
	return nil
}

// errNoSuchKey: a fingerprint that was given is that of no key.
var errNoSuchKey = errors.New("no such key")

func fingerprints(found []fetch.Found) string {
	var all []string
	for _, offer := range found {
		for _, k := range offer.Keys {
			all = append(all, trust.FormatFingerprint(k.Fingerprint)+" at "+offer.URL)
		}
	}
	return strings.Join(all, ", ")
}

// findKeys reads keys from a location, or discovers them.
func (c *cli) findKeys(ctx context.Context, f *fetch.Fetcher, o *trustAddOptions, args []string) ([]fetch.Found, error) {
	if len(args) == 0 {
		return f.Keys(ctx, o.prefix)
	}
	keys, err := f.KeysAt(ctx, args[0], c.stdin)
	return []fetch.Found{{Prefix: o.prefix, URL: args[0], Keys: keys}}, err
}

func (c *cli) addKeys(store *trust.Store, prefix string, keys []trust.Key) error {
	if err := store.Add(prefix, keys...); err != nil {
		return err
	}
	for _, k := range keys {
		c.notice(fmt.Sprintf("trusting %s for %s", trust.FormatFingerprint(k.Fingerprint), images(prefix)))
	}
	return nil
}

// images names those that a prefix stands for.
func images(prefix string) string {
	if prefix == "" {
		return "all images"
	}
	return "images " + prefix + " and below"
}

// asks tells whether there is somebody to ask.
func (c *cli) asks() bool {
	return term.IsTerminal(int(c.stdin.Fd())) && term.IsTerminal(int(c.stderr.Fd()))
}

var errNotTrusted = fmt.Errorf("%w: the key was not accepted", image.ErrUntrusted)

// reviewKeys shows keys, and asks whether they are to be trusted.
func (c *cli) reviewKeys(ctx context.Context, prefix string, offer fetch.Found) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Keys from %s:\n", offer.URL)
	for _, k := range offer.Keys {
		describeKey(&text, k)
	}
	c.say(text.String())
	for {
		answer, err := c.ask(ctx, fmt.Sprintf("Trust them for %s? [yes/no] ", images(prefix)))
		if err != nil {
			return err
		}
		switch strings.ToLower(answer) {
		case "yes":
			return nil
		case "no", "":
			return errNotTrusted
		}
	}
}

// reviewFor is what a fetch does about keys that it discovered.
func (c *cli) reviewFor(store *trust.Store) func(context.Context, string, fetch.Found) error {
	return func(ctx context.Context, name string, offer fetch.Found) error {
		prefix := name
		if offer.Prefix != "" {
			prefix = offer.Prefix
		}
		c.say("No key is trusted for " + name + ".\n")
		if err := c.reviewKeys(ctx, prefix, offer); err != nil {
			return err
		}
		return c.addKeys(store, prefix, offer.Keys)
	}
}

func describeKey(w io.Writer, k trust.Key) {
	fmt.Fprintf(w, "\n  Fingerprint  %s\n", trust.FormatFingerprint(k.Fingerprint))
	for _, identity := range k.Identities {
		fmt.Fprintf(w, "  Identity     %s\n", printable(identity))
	}
	expires := "never"
	if !k.Expires.IsZero() {
		expires = k.Expires.Format(time.DateOnly)
		if k.Expires.Before(time.Now()) {
			expires += " (EXPIRED)"
		}
	}
	fmt.Fprintf(w, "  Algorithm    %s\n  Created      %s, expires %s\n", k.Algorithm, k.Created.Format(time.DateOnly), expires)
	if k.Revoked {
		fmt.Fprintln(w, "  REVOKED by its owner")
	}
	for _, sub := range k.Subkeys {
		fmt.Fprintf(w, "  Subkey       %s\n", trust.FormatFingerprint(sub))
	}
	fmt.Fprintln(w)
}

// keyView is a trusted key.
type keyView struct {
	Fingerprint string     `json:"fingerprint" doc:"of the primary key, lower-case hexadecimal"`
	Prefixes    []string   `json:"prefixes" doc:"names of images that it is trusted for, and all below; \"\" is any name"`
	Identities  []string   `json:"identities" doc:"whose key it is, as it says itself"`
	Algorithm   string     `json:"algorithm" doc:"algorithm and size"`
	Created     time.Time  `json:"created" doc:"when it was made"`
	Expires     *time.Time `json:"expires" doc:"when it expires" null:"if never"`
	Revoked     bool       `json:"revoked" doc:"its owner has revoked it"`
	Subkeys     []string   `json:"subkeys" doc:"fingerprints of its subkeys"`
}

func viewKey(k trust.Key) keyView {
	v := keyView{
		Fingerprint: k.Fingerprint, Prefixes: notNil(k.Prefixes), Identities: notNil(k.Identities), Algorithm: k.Algorithm,
		Created: k.Created, Revoked: k.Revoked, Subkeys: notNil(k.Subkeys),
	}
	if !k.Expires.IsZero() {
		v.Expires = &k.Expires
	}
	return v
}

func newTrustListCommand(c *cli) *cobra.Command {
	var o listOptions
	var prefixes []string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the keys that are trusted",
		Args:    exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if _, err := c.open(); err != nil {
				return err
			}
			keys, damaged, err := trust.Open(keysDir(c.cfg.Root)).List(prefixes...)
			if err != nil {
				return err
			}
			for _, err := range damaged {
				c.warn(err.Error())
			}
			rows := make([]row, len(keys))
			for i, k := range keys {
				var names []string
				for _, p := range k.Prefixes {
					names = append(names, orAny(p))
				}
				rows[i] = row{k.Fingerprint, []string{
					strings.Join(names, ","), k.Fingerprint, k.Algorithm, k.Created.Format(time.DateOnly), validity(k), printable(strings.Join(k.Identities, ", ")),
				}, viewKey(k)}
			}
			return o.print(c.stdout, []string{"PREFIX", "FINGERPRINT", "ALGORITHM", "CREATED", "VALID", "IDENTITY"}, rows)
		},
	}
	o.add(cmd)
	cmd.Flags().Lookup("quiet").Usage = "only the fingerprints, one a line"
	cmd.Flags().StringArrayVar(&prefixes, "prefix", nil, "only keys for that `NAME`, as they were added; may be repeated")
	return cmd
}

func orAny(prefix string) string {
	if prefix == "" {
		return "(any name)"
	}
	return prefix
}

// validity says how long a key is good for.
func validity(k trust.Key) string {
	switch {
	case k.Revoked:
		return "revoked"
	case k.Expires.IsZero():
		return "for ever"
	case k.Expires.Before(time.Now()):
		return "expired"
	}
	return "until " + k.Expires.Format(time.DateOnly)
}

func newTrustRmCommand(c *cli) *cobra.Command {
	var prefixes []string
	cmd := &cobra.Command{
		Use:   "rm FINGERPRINT...",
		Short: "Trust keys no more; images that are here stay",
		Args:  some("FINGERPRINT..."),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := c.open(); err != nil {
				return err
			}
			store := trust.Open(keysDir(c.cfg.Root))
			var errs []error
			for _, fpr := range args {
				if _, err := trust.ParseFingerprint(fpr); err != nil {
					return usageError{err}
				}
				from, err := store.Remove(fpr, prefixes...)
				if errors.Is(err, trust.ErrNoKey) {
					err = fmt.Errorf("%s: %w is trusted there; 'jetpack trust list' shows those that are", fpr, errNoSuchKey)
				}
				errs = append(errs, err)
				for _, prefix := range from {
					if _, err := fmt.Fprintf(c.stdout, "%s: no longer trusted for %s\n", fpr, images(prefix)); err != nil {
						return err
					}
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().StringArrayVar(&prefixes, "prefix", nil, "only for that `NAME`, as it was added; may be repeated")
	return cmd
}
