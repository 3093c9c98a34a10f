package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	// maxSignature bounds a signature file; the largest usual signature, RSA 4096, has 900 bytes.
	maxSignature = 64 << 10
	// maxSignatures bounds those in one file, as the image is read for each that may be good.
	maxSignatures = 16
	// tagSignature is the packet type of signatures (RFC 9580, section 5).
	tagSignature = 2
)

// ParseSignature checks that b, of up to 64 KiB, is one armoured block with nothing but
// detached signatures of a binary file in it. What is not is ErrNoSignature, which
// says what it is instead.
func ParseSignature(b []byte) error {
	_, err := parseSignature(b)
	return err
}

// A candidate is one signature of a file of several.
type candidate struct {
	sig *packet.Signature // nil for a reason
	raw []byte            // the packet
	err error             // why it is not considered: wraps ErrNoSignature
}

// parseSignature gives 1 to maxSignatures candidates. One that is of no use spoils
// not the others, but if all are, that is an error.
func parseSignature(b []byte) ([]candidate, error) {
	body, err := signatureBody(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSignature, err)
	}
	var all []candidate
	var bad refusals
	for r := packet.NewOpaqueReader(bytes.NewReader(body)); ; {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: packet %d: %w", ErrNoSignature, len(all)+1, err)
		}
		// Whatever else stands beside a signature is there to be taken for signed
		// (CVE-2019-11841, CVE-2025-47934).
		if p.Tag != tagSignature {
			return nil, fmt.Errorf("%w: packet %d is of type %d, not a signature; gpg --armor --detach-sign makes detached ones", ErrNoSignature, len(all)+1, p.Tag)
		}
		if len(all) == maxSignatures {
			return nil, fmt.Errorf("%w: more than %d signatures", ErrNoSignature, maxSignatures)
		}
		c := parseCandidate(p)
		if c.err != nil {
			bad = append(bad, c.err)
		}
		all = append(all, c)
	}
	if len(bad) == len(all) {
		return nil, bad
	}
	return all, nil
}

func parseCandidate(p *packet.OpaquePacket) candidate {
	refuse := func(format string, args ...any) candidate {
		return candidate{err: fmt.Errorf("%w: "+format, append([]any{ErrNoSignature}, args...)...)}
	}
	// 3 is of PGP, and no program makes it any more; 5 was of drafts.
	if len(p.Contents) > 0 && p.Contents[0] != 4 && p.Contents[0] != 6 {
		return refuse("of version %d, which is none of 4 and 6", p.Contents[0])
	}
	parsed, err := p.Parse()
	if err != nil {
		return refuse("%w", err)
	}
	sig, ok := parsed.(*packet.Signature)
	switch {
	case !ok:
		return refuse("packet type %T", parsed)
	// A signature of text (type 1) holds for other bytes, too: line ends are free.
	case sig.SigType == packet.SigTypeText:
		return refuse("made of a text, in which line ends may change; sign without --textmode")
	case sig.SigType != packet.SigTypeBinary:
		return refuse("signature type %#02x, which is not of a file", uint8(sig.SigType))
	case sig.IssuerKeyId == nil:
		return refuse("it does not name its key")
	}
	var raw bytes.Buffer
	if err := p.Serialize(&raw); err != nil {
		return refuse("%w", err)
	}
	return candidate{sig: sig, raw: raw.Bytes()}
}

// signatureBody gives the packets of the one block of a signature file.
func signatureBody(b []byte) ([]byte, error) {
	text := bytes.TrimSpace(b)
	switch {
	case len(b) > maxSignature:
		return nil, fmt.Errorf("more than %d KiB", maxSignature>>10)
	case len(text) == 0:
		return nil, errors.New("empty")
	case b[0]&0x80 != 0: // RFC 9580, section 4.2: so begins a packet, and no text
		return nil, errors.New("binary; gpg --armor --detach-sign makes armoured ones")
	case text[0] == '<':
		return nil, errors.New("a page (HTML or XML): does the server have the signature?")
	}
	all, other, err := blocks(b)
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, errors.New("no line -----BEGIN PGP SIGNATURE-----")
	case all[0].kind == "PGP SIGNED MESSAGE":
		return nil, errors.New("a clear-signed text; gpg --armor --detach-sign makes detached ones")
	case all[0].kind == "PGP MESSAGE":
		return nil, errors.New("a message that contains what it signs; gpg --armor --detach-sign makes detached ones")
	case all[0].kind != "PGP SIGNATURE":
		return nil, fmt.Errorf("armour of type %q", all[0].kind)
	case len(all) > 1:
		return nil, errors.New("several blocks; several signatures go into one")
	case other:
		return nil, errors.New("text around the armour")
	}
	return all[0].body, nil
}

// refusals are the reasons why none of several signatures is good.
type refusals []error

func (r refusals) Error() string {
	if len(r) == 1 {
		return r[0].Error()
	}
	var b strings.Builder
	for i, err := range r {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "signature %d of %d: %v", i+1, len(r), err)
	}
	return b.String()
}

func (r refusals) Unwrap() []error { return r }
