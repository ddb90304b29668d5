package main

import (
	"fmt"
	"io"
	"os"

	"authd/api"
)

// maxKeyFile bounds the file: a 4096-bit key in PEM needs 3.3 KiB.
const maxKeyFile = 16 << 10

type keyImportCmd struct {
	Domain   string `arg:"" help:"Domain or token."`
	File     string `arg:"" help:"File with the key; - for standard input."`
	Public   bool   `help:"The file holds a public half (TXT payload, p=, or PEM); its private half signs elsewhere."`
	Selector string `help:"Delegated mode: the selector to publish it at. Left out, one is minted; --public needs it."`
	Reason   string `help:"Why, for the audit."`
}

func (keyImportCmd) Help() string {
	return `A private key (PEM, PKCS #1 or PKCS #8, unencrypted; RSA of 2048 to 4096 bits, or Ed25519) becomes
the standby, in the place of the one that is there. It signs once every receiver can see its record and
you rotate, or on schedule. Weak keys, and keys that another tenant has, are refused.

With --public the record is published and watched, and nothing here signs with it. In mode cname it holds
one of the three slots, and rotation is by hand until it is revoked.

    authd key import send.customer.example old-provider.pem --selector s1
    authd key import customer.example elsewhere.txt --public --reason "helpdesk signs by itself"
`
}

func (c *keyImportCmd) Run(s *session) error {
	text, err := c.read(s.stdin)
	if err != nil {
		return err
	}
	defer clear(text)
	body := api.BroughtKey{Selector: c.Selector, Reason: c.Reason}
	if c.Public {
		body.Public = string(text)
	} else {
		body.PrivateKey = api.PrivateText(text)
	}
	var d api.Domain
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "keys"), nil, body, &d)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		printKeys(w, d.Keys)
		if d.Suspended != "" {
			fmt.Fprintf(w, "\nRotation is suspended: %s.\n", d.Suspended)
		}
	})
}

func (c *keyImportCmd) read(stdin io.Reader) ([]byte, error) {
	source := stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, fmt.Errorf("reading key: %w", err)
		}
		defer f.Close()
		source = f
	}
	text, err := io.ReadAll(io.LimitReader(source, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading key from %s: %w", c.File, err)
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("reading key from %s: more than %d octets: that is no key", c.File, maxKeyFile)
	}
	return text, nil
}
