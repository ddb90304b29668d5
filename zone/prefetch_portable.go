//go:build !amd64 && !arm64

package zone

// prefetch does nothing where Go's assembler has no word for it: an answer is the
// same without.
func prefetch(*byte, int) {}
