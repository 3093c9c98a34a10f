// Command ac-mdc asks the metadata service on behalf of an app: it is for scripts in
// images, static, and needs nothing but the environment that every app has.
//
// Not for: the host, which has jetpack.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/template"
)

const usage = `ac-mdc asks the pod's metadata service (AC_METADATA_URL) for an app (AC_APP_NAME).

  ac-mdc uuid                            the pod's UUID
  ac-mdc manifest                        the pod's manifest
  ac-mdc annotation NAME [DEFAULT]       an annotation of the pod
  ac-mdc app-annotation NAME [DEFAULT]   an annotation of the app, or of its image
  ac-mdc image-id                        the ID of the app's image
  ac-mdc image-manifest                  its manifest
  ac-mdc sign [FILE]                     a signature of FILE, or of standard input, by the pod
  ac-mdc verify UUID SIGNATURE [FILE]    tell whether the pod UUID signed it
  ac-mdc render FILE                     FILE, or - for standard input, with its {{…}} filled in
  ac-mdc expand TEMPLATE                 TEMPLATE likewise

A template is one of Go's text/template, with the functions uuid, imageID, annotation
NAME [DEFAULT], appAnnotation NAME [DEFAULT], and env NAME.

Exit status: 1 when there is no such annotation, the signature is not good, or the
service does not answer; 2 for a wrong command line.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

type usageError string

func (e usageError) Error() string { return string(e) }

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h") {
		fmt.Fprint(stdout, usage)
		return 0
	}
	out, err := do(ctx, args, getenv, stdin)
	if err == nil {
		_, err = io.WriteString(stdout, out)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "ac-mdc: %v\n", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}

// command is one of ac-mdc's: how many arguments it takes, and what it gives.
type command struct {
	least, most int
	run         func(ctx context.Context, c *client, args []string, in io.Reader) (string, error)
}

var commands = map[string]command{
	"uuid":           {0, 0, asked(func(*client) (string, error) { return "/pod/uuid", nil })},
	"manifest":       {0, 0, asked(func(*client) (string, error) { return "/pod/manifest", nil })},
	"image-id":       {0, 0, asked(func(c *client) (string, error) { return c.ofApp("/image/id") })},
	"image-manifest": {0, 0, asked(func(c *client) (string, error) { return c.ofApp("/image/manifest") })},
	"annotation": {1, 2, func(ctx context.Context, c *client, args []string, _ io.Reader) (string, error) {
		return or(c.podAnnotation)(ctx, args[0], args[1:]...)
	}},
	"app-annotation": {1, 2, func(ctx context.Context, c *client, args []string, _ io.Reader) (string, error) {
		return or(c.appAnnotation)(ctx, args[0], args[1:]...)
	}},
	"sign": {0, 1, func(ctx context.Context, c *client, args []string, in io.Reader) (string, error) {
		content, err := read(args, in)
		if err != nil {
			return "", err
		}
		return c.sign(ctx, content)
	}},
	"verify": {2, 3, func(ctx context.Context, c *client, args []string, in io.Reader) (string, error) {
		content, err := read(args[2:], in)
		if err != nil {
			return "", err
		}
		return "", c.verify(ctx, args[0], args[1], content)
	}},
	"render": {1, 1, func(ctx context.Context, c *client, args []string, in io.Reader) (string, error) {
		text, err := read(args, in)
		if err != nil {
			return "", err
		}
		return c.expand(ctx, args[0], text)
	}},
	"expand": {1, 1, func(ctx context.Context, c *client, args []string, _ io.Reader) (string, error) {
		return c.expand(ctx, "template", args[0])
	}},
}

// do runs a command. What it prints ends with a line, unless it is a file.
func do(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader) (string, error) {
	if len(args) == 0 {
		return "", usageError("no command; 'ac-mdc help' lists them")
	}
	cmd, ok := commands[args[0]]
	if n := len(args) - 1; !ok || n < cmd.least || n > cmd.most {
		return "", usageError(fmt.Sprintf("%q is not a command with so many arguments; 'ac-mdc help' lists them", args[0]))
	}
	c, err := newClient(getenv)
	if err != nil {
		return "", err
	}
	out, err := cmd.run(ctx, c, args[1:], stdin)
	if err == nil && out != "" && args[0] != "render" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	return out, err
}

// asked is a command that prints what is at a path.
func asked(path func(*client) (string, error)) func(context.Context, *client, []string, io.Reader) (string, error) {
	return func(ctx context.Context, c *client, _ []string, _ io.Reader) (string, error) {
		p, err := path(c)
		if err != nil {
			return "", err
		}
		return c.get(ctx, p)
	}
}

// or makes a look-up one with a default.
func or(look func(context.Context, string) (string, error)) func(context.Context, string, ...string) (string, error) {
	return func(ctx context.Context, name string, byDefault ...string) (string, error) {
		value, err := look(ctx, name)
		if errors.Is(err, errAbsent) && len(byDefault) == 1 {
			return byDefault[0], nil
		}
		return value, err
	}
}

// maxContent is more than a service signs.
const maxContent = 1 << 20

// read gives the content of the one file in args; that is standard input if there is
// none, or "-".
func read(args []string, stdin io.Reader) (_ string, err error) {
	in := stdin
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxContent+1))
	if err == nil && len(data) > maxContent {
		err = fmt.Errorf("more than %d bytes", maxContent)
	}
	return string(data), err
}

// expand fills in a template.
func (c *client) expand(ctx context.Context, name, text string) (string, error) {
	look := func(f func(context.Context, string) (string, error)) any {
		return func(name string, byDefault ...string) (string, error) {
			if len(byDefault) > 1 {
				return "", errors.New("more than one default")
			}
			return or(f)(ctx, name, byDefault...)
		}
	}
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{
		"uuid": func() (string, error) { return c.get(ctx, "/pod/uuid") },
		"imageID": func() (string, error) {
			path, err := c.ofApp("/image/id")
			if err != nil {
				return "", err
			}
			return c.get(ctx, path)
		},
		"annotation":    look(c.podAnnotation),
		"appAnnotation": look(c.appAnnotation),
		"env":           c.getenv,
	}).Parse(text) //nolint:gosec // whose template it is may ask the service without it
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, nil)
	return out.String(), err
}
