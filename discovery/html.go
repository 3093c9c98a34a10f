package discovery

import (
	"errors"
	"io"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// The names of the meta tags that discovery reads.
const (
	tagEndpoint = "ac-discovery"
	tagKeys     = "ac-discovery-pubkeys"
)

// tag is a meta tag of discovery: which names it is for, and what it says of them.
type tag struct{ kind, prefix, url string }

// parseTags reads the tags in the head of a page; malformed ones are passed over.
// It stops at the end of the head: what follows can be anybody's text.
func parseTags(page io.Reader) ([]tag, error) {
	var tags []tag
	z := html.NewTokenizer(page)
	for {
		kind := z.Next()
		token := z.Token()
		switch {
		case kind == html.ErrorToken && errors.Is(z.Err(), io.EOF):
			return tags, nil
		case kind == html.ErrorToken:
			return nil, z.Err()
		case kind == html.StartTagToken && token.DataAtom == atom.Body,
			kind == html.EndTagToken && token.DataAtom == atom.Head:
			return tags, nil
		case (kind == html.StartTagToken || kind == html.SelfClosingTagToken) && token.DataAtom == atom.Meta:
			if t, ok := parseTag(token); ok {
				tags = append(tags, t)
			}
		}
	}
}

func parseTag(token html.Token) (tag, bool) {
	attributes := map[string]string{}
	for _, a := range token.Attr {
		if _, ok := attributes[a.Key]; !ok { // of several, HTML takes the first
			attributes[a.Key] = a.Val
		}
	}
	content := strings.TrimSpace(attributes["content"])
	end := strings.IndexFunc(content, unicode.IsSpace)
	if end < 0 {
		return tag{}, false
	}
	t := tag{
		kind:   strings.ToLower(attributes["name"]),
		prefix: strings.TrimSuffix(content[:end], "/"),
		url:    strings.TrimSpace(content[end:]),
	}
	return t, t.prefix != "" && (t.kind == tagEndpoint || t.kind == tagKeys)
}
