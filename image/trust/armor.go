package trust

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

var (
	armorBegin = []byte("-----BEGIN ")
	armorEnd   = []byte("-----END ")
	armorDash  = []byte("-----")
)

// A block is one piece of ASCII armour (RFC 9580, section 6.2).
type block struct {
	kind string // "PGP SIGNATURE"
	body []byte // the packets
}

// blocks takes text apart into its armour and whether there is anything between or
// around it. go-crypto's decoder gives the first block only, and does not miss the last
// line of a truncated one. The checksum is not looked at, as section 6.1 demands.
func blocks(b []byte) (all []block, other bool, err error) {
	lines := bytes.Split(b, []byte("\n"))
	for i := 0; i < len(lines); i++ {
		line := bytes.TrimSpace(lines[i])
		if !bytes.HasPrefix(line, armorBegin) || !bytes.HasSuffix(line, armorDash) {
			other = other || len(line) > 0
			continue
		}
		kind := line[len(armorBegin):max(len(armorBegin), len(line)-len(armorDash))]
		if string(kind) == "PGP SIGNED MESSAGE" {
			return []block{{kind: string(kind)}}, other, nil // the text follows, not armour
		}
		end := -1
		for j := i + 1; j < len(lines) && end < 0; j++ {
			switch line := bytes.TrimSpace(lines[j]); {
			case bytes.HasPrefix(line, armorEnd):
				if want := fmt.Sprintf("%s%s%s", armorEnd, kind, armorDash); string(line) != want {
					return nil, other, fmt.Errorf("armour: block %q ends with %q", kind, line)
				}
				end = j
			case bytes.HasPrefix(line, armorBegin):
				return nil, other, fmt.Errorf("armour: block %q has no end", kind)
			}
		}
		if end < 0 {
			return nil, other, fmt.Errorf("armour: block %q has no end: truncated", kind)
		}
		body, err := armorBody(lines[i+1 : end])
		if err != nil {
			return nil, other, fmt.Errorf("armour: block %q: %w", kind, err)
		}
		all = append(all, block{string(kind), body})
		i = end
	}
	return all, other, nil
}

// armorBody decodes what is between the first and the last line.
func armorBody(lines [][]byte) ([]byte, error) {
	// Headers, then an empty line. The base64 alphabet has no colon, so that headers
	// without their empty line are noticed by the decoder.
	for i, line := range lines {
		if len(bytes.TrimSpace(line)) == 0 {
			lines = lines[i+1:]
			break
		}
		if !bytes.Contains(line, []byte(": ")) && !bytes.HasSuffix(bytes.TrimSpace(line), []byte(":")) {
			return nil, errors.New("no empty line after the headers")
		}
	}
	var text []byte
	for i, line := range lines {
		line = bytes.TrimSpace(line)
		if len(line) == 5 && line[0] == '=' {
			if len(bytes.TrimSpace(bytes.Join(lines[i+1:], nil))) > 0 {
				return nil, errors.New("data after the checksum")
			}
			break
		}
		text = append(text, line...)
	}
	body := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(body, text)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("empty")
	}
	return body[:n], nil
}
