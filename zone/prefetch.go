//go:build amd64 || arm64

package zone

// prefetch asks the caches for the lines of some octets, one or more, without
// waiting for them: what a load cannot say, of which the processor can have only
// so many under way before it stands still. Any address will do.
//
//go:noescape
func prefetch(from *byte, octets int)
