package aci

import (
	"context"
	"io"
)

// ExtractHere is Extract without a process of its own.
func ExtractHere(ctx context.Context, r io.ReadSeeker, rootfs string, o ExtractOptions) (Result, error) {
	result, err := format.ExtractHere(ctx, r, rootfs, o)
	return newResult(result), err
}
