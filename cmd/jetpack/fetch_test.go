package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/discovery/repository"
)

func TestIsRemote(t *testing.T) {
	for name, want := range map[string]bool{
		"example.com/app": true, "example.com": true, "localhost/app": true, "localhost": true,
		"demo/app": false, "app": false, "localhosts/app": false, "demo/example.com": false,
	} {
		if got := isRemote(name); got != want {
			t.Errorf("isRemote(%q) = %t", name, got)
		}
	}
}

func TestParseName(t *testing.T) {
	for name, want := range map[string]string{
		"example.com/app":              "",
		"example.com/app:1.0,os=linux": "",
		"./app.aci":                    "is a location",
		"/app":                         "is a location",
		"https://example.com/app":      "is a location",
		"-":                            "is a location",
		"No Name":                      `invalid image name "No Name": not an AC Identifier`,
	} {
		_, err := parseName(name)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || exitCode(err, false) != exitUsage) {
			t.Errorf("parseName(%q): %v, want %q", name, err, want)
		}
	}
}

// What a repository publishes is asked for by version, and the latest without.
func TestPublished(t *testing.T) {
	names, digests := published([]repository.Entry{
		{Name: "example.com/a", Version: "2", OS: "linux", Arch: "amd64", Digest: "two", Latest: true},
		{Name: "example.com/a", Version: "1", OS: "linux", Arch: "amd64", Digest: "one"},
	})
	var got []string
	for i, ref := range names {
		got = append(got, ref.String()+" "+digests[i])
	}
	want := []string{
		"example.com/a:2,arch=amd64,os=linux two", "example.com/a,arch=amd64,os=linux two", "example.com/a:1,arch=amd64,os=linux one",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFirstLine(t *testing.T) {
	for in, want := range map[string]string{"": "", "a b": "a b", "a\n": "a", "a\r\nb\n": "a", "\na": ""} {
		if got, err := firstLine(strings.NewReader(in)); err != nil || string(got) != want {
			t.Errorf("firstLine(%q) = %q, %v", in, got, err)
		}
	}
}
