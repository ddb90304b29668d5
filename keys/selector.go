package keys

import (
	"encoding/base32"
	"fmt"
	"io"
	"time"
)

// selectorRandom is how many base32 characters follow the month: 30 random bits,
// so that nobody finds a standby's name by guessing before it signs.
const selectorRandom = 6

var selectorBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// MintSelector draws a selector: the month as YYMM, a hyphen and six random
// base32 characters.
func MintSelector(random io.Reader, at time.Time) (string, error) {
	var bits [5]byte // 8 characters, of which 6 are used
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return "", fmt.Errorf("minting selector: %w", err)
	}
	return at.UTC().Format("0601") + "-" + selectorBase32.EncodeToString(bits[:])[:selectorRandom], nil
}

// mintedMonth reads the month of a minted selector, counted from year 0.
func mintedMonth(selector string) (months int, ok bool) {
	if len(selector) != 5+selectorRandom || selector[4] != '-' {
		return 0, false
	}
	for _, c := range []byte(selector[5:]) {
		if !(c >= 'a' && c <= 'z' || c >= '2' && c <= '7') {
			return 0, false
		}
	}
	month, err := time.Parse("0601", selector[:4])
	if err != nil {
		return 0, false
	}
	// time.Parse takes 69 to 99 for the last century; all of ours are of this one.
	return (2000+month.Year()%100)*12 + int(month.Month()) - 1, true
}
