//go:build !lab

package keys

// LabSource gives pairs that look like keys and cannot sign, for scale tests.
// Only a build with the tag lab has it.
func LabSource(uint64) (Source, bool) { return nil, false }

func restoreLab(string, []byte) (*Pair, bool) { return nil, false }
