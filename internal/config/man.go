package config

import (
	"fmt"
	"io"
	"strings"
)

const manHead = `.TH JETPACK.TOML 5 "" jetpack "File Formats Manual"
.SH NAME
jetpack.toml \- configuration of jetpack
.SH DESCRIPTION
The file is in TOML format. A key may be written dotted, as below, or in the
table that its first part names. The file may be missing; so may any key.
.PP
The option \fB\-\-set\fR \fIKEY\fR=\fIVALUE\fR of
.BR jetpack (1)
sets a key for one command and wins over the file, as the file wins over the
default. The command \fBjetpack config\fR shows the values in effect.
.PP
The file has to belong to root or to the user who runs jetpack, and nobody else
may be able to write it. If it sets a secret, not everybody may be able to read it.
.SH KEYS
`

const manTail = `.SH VALUES
.TP
.B string
text in quotes, not empty, without control characters
.TP
.B path
an absolute file name in quotes
.TP
.B choice
one of the words listed, in quotes
.TP
.B size
a number of bytes, or, in quotes, a number with one of the suffixes K, M, G and
T for powers of 1024
.TP
.B integer
a whole number from 1, without quotes
.TP
.B duration
in quotes, numbers with units (h, m, s, ms) such as "10s" or "1m30s"
.SH FILES
.TP
.I %s
on FreeBSD
.TP
.I %s
elsewhere
.SH EXAMPLES
.nf
root = "/data/jetpack"
image.max\-size = "16G"

[log]
level = "warn"
.fi
.SH SEE ALSO
.BR jetpack (1)
`

// ManPage writes the manual page jetpack.toml(5), in the man(7) language.
func ManPage(w io.Writer) error {
	return manPage(w, Keys())
}

func manPage(w io.Writer, keys []Key) error {
	var b strings.Builder
	b.WriteString(manHead)
	for _, k := range keys {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR (%s)\n%s\n.br\n%s\n",
			roff(k.Name), k.Type, roff(k.Doc), roff(k.remarks()))
	}
	fmt.Fprintf(&b, manTail, DefaultPath("freebsd"), DefaultPath("linux"))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write manual page: %w", err)
	}
	return nil
}

// remarks says what the type leaves open.
func (k Key) remarks() string {
	var s []string
	if len(k.Choices) > 0 {
		s = append(s, "One of "+strings.Join(k.Choices, ", ")+".")
	}
	switch {
	case k.FreeBSD != "":
		s = append(s, fmt.Sprintf("Default: %s on FreeBSD, %s elsewhere.", k.FreeBSD, k.Default))
	case k.Default != "":
		s = append(s, "Default: "+k.Default+".")
	default:
		s = append(s, "No default.")
	}
	if k.Secret {
		s = append(s, "Secret: never shown.")
	}
	return strings.Join(s, " ")
}

// roff quotes text for man(7): characters with a meaning, and a control
// character at the start of a line.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
