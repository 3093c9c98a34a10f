package aci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
)

// Rewrite writes an image file that is the one in r, compressed or not, with another
// manifest in the place of its own; the bytes of all other entries stay as they are. What
// is in r is taken to be valid. The manifest's entry is as Pack writes it, of the time
// that it had.
func Rewrite(ctx context.Context, w io.Writer, r io.Reader, manifest []byte, c extract.Compression) (err error) {
	in, _, err := extract.Decompress(extract.WithContext(ctx, r), recognise)
	if err != nil {
		return fmt.Errorf("rewrite image: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	err = compress(w, c, func(w io.Writer) error { return replaceManifest(w, in, manifest) })
	if err != nil {
		return fmt.Errorf("rewrite image: %w", err)
	}
	return nil
}

// replaceManifest copies an archive. It reads entry by entry; what that takes from r
// passes by the tap, so that it can be written unread.
func replaceManifest(w io.Writer, r io.Reader, manifest []byte) error {
	in := &tap{r: r}
	tr := tar.NewReader(in)
	rest := io.Discard // where the padding of the last entry goes
	found := false
	for {
		// An entry's padding is read together with the header of the next.
		padding := -in.size & (tarBlock - 1)
		var head bytes.Buffer
		in.sink = &head
		hdr, err := tr.Next()
		if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
			return err
		}
		if _, err := rest.Write(head.Next(int(min(padding, int64(head.Len()))))); err != nil {
			return err
		}
		if hdr == nil {
			if !found {
				return ErrNoManifest
			}
			in.sink = w
			if _, err := head.WriteTo(w); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, in)
			return err
		}
		name, err := layer.CleanName(hdr.Name)
		if err == nil && name == manifestName {
			found, rest, in.sink = true, io.Discard, io.Discard
			err = writeManifestOnly(w, manifest, hdr.ModTime)
		} else {
			rest, in.sink = w, w
			_, err = head.WriteTo(w)
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, tr); err != nil { //nolint:gosec // a valid image is within its limits
			return err
		}
	}
}

const tarBlock = 512

// writeManifestOnly writes the entry of a manifest, padded, and no end of an archive.
func writeManifestOnly(w io.Writer, manifest []byte, modTime time.Time) error {
	tw := tar.NewWriter(w)
	if err := writeManifest(tw, manifest, modTime); err != nil {
		return err
	}
	return tw.Flush()
}

// tap copies to sink what is read of r, and counts it.
type tap struct {
	r    io.Reader
	size int64
	sink io.Writer
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.size += int64(n)
	if _, err := t.sink.Write(p[:n]); err != nil {
		return n, err
	}
	return n, err
}

// TarOptions say what PackTar writes.
type TarOptions struct {
	Limits      layer.Limits
	Latest      time.Time // as in PackOptions
	Compression extract.Compression
}

// PackTar writes an image file, as Pack does, whose root file system is the tar archive
// in r, compressed or not: its entries, in its order, below rootfs. Of extended headers
// only extended attributes are kept, and times are to the nanosecond; names of owners,
// holes and times of access are lost. An archive without an entry for its top
// directory gets one: 0755, 0:0, of the manifest's time. What it has and jetpack does
// not restore is in the warnings. Errors: those of extract.Decompress, and of layer.Checker
// about entries.
func PackTar(ctx context.Context, w io.Writer, manifest []byte, r io.Reader, o TarOptions) (warnings []string, err error) {
	in, _, err := extract.Decompress(extract.WithContext(ctx, r), recognise)
	if err != nil {
		return nil, fmt.Errorf("write image: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	checker, err := layer.NewChecker(o.Limits)
	if err != nil {
		return nil, fmt.Errorf("write image: %w", err)
	}
	archive := extract.NewArchive(in, crc32.NewIEEE(), maxSize(o.Limits)) // nobody asks for its hash
	err = compress(w, o.Compression, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := writeManifest(tw, manifest, o.Latest); err != nil {
			return err
		}
		if err := packEntries(tw, archive, checker, o.Latest); err != nil {
			return err
		}
		if err := archive.Finish(); err != nil {
			return err
		}
		return tw.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("write image: %w", err)
	}
	return checker.Warnings(), nil
}

// packEntries copies the entries of an archive, checked, below rootfs.
func packEntries(w *tar.Writer, r *extract.Archive, checker *layer.Checker, latest time.Time) error {
	top := false
	for {
		hdr, err := r.Next()
		if err != nil {
			return err
		}
		if hdr == nil {
			break
		}
		name, err := layer.CleanName(hdr.Name)
		if err != nil {
			return err
		}
		top = top || name == "."
		out, err := packedHeader(hdr, name, latest)
		if err == nil {
			err = w.WriteHeader(out)
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", name, err)
		}
		// What is refused has been written in vain.
		if err := checker.Check(hdr, name, io.TeeReader(r, w)); err != nil {
			return err
		}
	}
	if top {
		return nil
	}
	return w.WriteHeader(&tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeDir, Name: rootfsName + "/", Mode: 0o755, ModTime: manifestTime(latest),
	})
}

// packedHeader is an entry as it is in an image.
func packedHeader(hdr *tar.Header, name string, latest time.Time) (*tar.Header, error) {
	out := &tar.Header{
		Format: tar.FormatPAX, Typeflag: hdr.Typeflag, Name: rootfsName, Linkname: hdr.Linkname, Size: hdr.Size,
		Mode: hdr.Mode & 0o7777, Uid: hdr.Uid, Gid: hdr.Gid, ModTime: hdr.ModTime, Devmajor: hdr.Devmajor, Devminor: hdr.Devminor,
		PAXRecords: maps.Clone(hdr.PAXRecords),
	}
	if name != "." {
		out.Name += "/" + name
	}
	maps.DeleteFunc(out.PAXRecords, func(record, _ string) bool { return !strings.HasPrefix(record, "SCHILY.xattr.") })
	if !latest.IsZero() && out.ModTime.After(latest) {
		out.ModTime = latest
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		out.Name += "/"
	case tar.TypeGNUSparse:
		out.Typeflag = tar.TypeReg // r gives the holes as zeros
	case tar.TypeLink:
		target, err := layer.CleanName(hdr.Linkname)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", layer.ErrHardLink, err)
		}
		out.Linkname = rootfsName + "/" + target
	}
	return out, nil
}

// Recompress writes what is in an image file, compressed or not, compressed in another
// way: the image ID stays.
func Recompress(ctx context.Context, w io.Writer, r io.Reader, c extract.Compression) (err error) {
	in, _, err := extract.Decompress(extract.WithContext(ctx, r), recognise)
	if err != nil {
		return fmt.Errorf("compress image: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	err = compress(w, c, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
	if err != nil {
		return fmt.Errorf("compress image: %w", err)
	}
	return nil
}
