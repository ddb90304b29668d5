package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"authd/api"
	"authd/zone"
)

// importRow is one domain of an import file.
type importRow struct {
	line int
	item api.ImportItem
}

// badLine is one line that cannot be imported, and why.
type badLine struct {
	line   int
	reason string
}

// Bounds of an import file. What the server takes at once is less: the file is
// sent in chunks.
const (
	importLineBytes = 1 << 20
	importRows      = 2_000_000
)

// importFields are the columns of a CSV file, in the order of the help; the
// members of an NDJSON object are those of the API instead.
var importFields = map[string]func(r *importRow, cell, dir string) error{
	"tenant": func(r *importRow, cell, _ string) error { r.item.Tenant = cell; return nil },
	"domain": func(r *importRow, cell, _ string) error { r.item.Domain = cell; return nil },
	"mode":   func(r *importRow, cell, _ string) error { r.item.Mode = cell; return nil },
	"pool":   func(r *importRow, cell, _ string) error { r.item.Pool = cell; return nil },
	"labels": func(r *importRow, cell, _ string) (err error) { r.item.Labels, err = readLabels(cell); return err },
	"signs_for": func(r *importRow, cell, _ string) error {
		r.item.SignsFor = strings.Fields(cell)
		return nil
	},
	"targets": func(r *importRow, cell, _ string) (err error) { r.item.Targets, err = readTargets(cell); return err },
	"key_file": func(r *importRow, cell, dir string) error {
		return readKeyFile(r, cell, dir)
	},
	"selector": func(r *importRow, cell, _ string) error {
		if cell != "" {
			r.key().Selector = cell
		}
		return nil
	},
}

// key is the one key that a CSV line can bring.
func (r *importRow) key() *api.NewKey {
	if len(r.item.Keys) == 0 {
		r.item.Keys = make([]api.NewKey, 1)
	}
	return &r.item.Keys[0]
}

// readImport reads a whole file. Lines that are bad by themselves, or repeat
// another one, are told; the rows are the others, in order. The error is for a
// file that cannot be read at all.
func readImport(in io.Reader, format, dir string) (rows []importRow, bad []badLine, err error) {
	buffered := bufio.NewReaderSize(in, 1<<16)
	if err := skipMark(buffered); err != nil {
		return nil, nil, err
	}
	if format == "" {
		format = sniffFormat(buffered)
	}
	seen := map[string]int{}
	take := func(r importRow, fault error) error {
		if fault == nil {
			fault = r.check(seen)
		}
		if fault != nil {
			bad = append(bad, badLine{r.line, fault.Error()})
			return nil
		}
		if len(rows) == importRows {
			return fmt.Errorf("more than %d lines: cut the file", importRows)
		}
		rows = append(rows, r)
		return nil
	}
	if format == "ndjson" {
		err = readNDJSON(buffered, take)
	} else {
		err = readCSV(buffered, dir, take)
	}
	return rows, bad, err
}

// skipMark skips the byte order mark that spreadsheets write.
func skipMark(in *bufio.Reader) error {
	head, _ := in.Peek(3) // a shorter file, or one that cannot be read: whoever reads on is told
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return errors.New("the file is UTF-16: save it as UTF-8")
	case string(head) == "\ufeff":
		_, err := in.Discard(len(head))
		return err
	}
	return nil
}

// sniffFormat tells NDJSON, which begins with an object, from CSV.
func sniffFormat(in *bufio.Reader) string {
	for n := 1; ; n++ {
		head, err := in.Peek(n)
		if err != nil {
			return "csv"
		}
		switch head[n-1] {
		case ' ', '\t', '\r', '\n':
		case '{':
			return "ndjson"
		default:
			return "csv"
		}
	}
}

// check is what can be said of a row without the server.
func (r *importRow) check(seen map[string]int) error {
	if r.item.Tenant == "" {
		return errors.New("tenant: missing")
	}
	if r.item.Domain == "" {
		return errors.New("domain: missing")
	}
	name, err := zone.ParseHost(r.item.Domain)
	if err != nil {
		return fmt.Errorf("domain: %w", err)
	}
	switch r.item.Mode {
	case "":
		r.item.Mode = "delegated"
	case "delegated", "cname":
	default:
		return fmt.Errorf("mode: %q is neither delegated nor cname", bounded(r.item.Mode))
	}
	if r.item.Pool == "" {
		r.item.Pool = "default"
	}
	if len(r.item.Keys) > 0 && r.item.Keys[0].PrivateKey == "" {
		return errors.New("selector: without a key_file it says nothing; leave it out")
	}
	key := r.item.Tenant + "\x00" + r.item.Mode + "\x00" + string(name) // a tenant may have both modes of one name
	if first, repeated := seen[key]; repeated {
		return fmt.Errorf("domain: %s of tenant %s is on line %d already", name.Host(), r.item.Tenant, first)
	}
	seen[key] = r.line
	r.item.Line = r.line
	return nil
}

// readCSV reads RFC 4180 with a header line. A field ends with its line, since none may
// hold a line break: so a stray quote spoils its own line and swallows no other.
func readCSV(in io.Reader, dir string, take func(importRow, error) error) error {
	var columns []string
	err := eachRow(in, func(n int, text string) error {
		cells, fault := csvCells(text)
		if columns == nil {
			if fault != nil {
				return fmt.Errorf("line %d: the header is %w", n, fault)
			}
			columns, fault = readHeader(cells)
			return fault
		}
		row := importRow{line: n}
		if fault == nil {
			fault = row.fill(columns, cells, dir)
		}
		return take(row, fault)
	})
	if err == nil && columns == nil {
		return errors.New("the file is empty: the first line must name the columns, such as tenant,domain,mode,pool")
	}
	return err
}

// csvCells reads the cells of one line.
func csvCells(text string) ([]string, error) {
	if !utf8.ValidString(text) {
		return nil, errNotUTF8
	}
	if !strings.Contains(text, `"`) {
		return strings.Split(text, ","), nil
	}
	c := csv.NewReader(strings.NewReader(text))
	c.FieldsPerRecord = -1
	cells, err := c.Read()
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, fmt.Errorf("not CSV: %w", parse.Err)
	}
	return cells, err
}

var errNotUTF8 = errors.New("not UTF-8: save the file as UTF-8")

// eachRow gives the lines that are not empty, without their ends, and their numbers.
func eachRow(in io.Reader, take func(n int, text string) error) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), importLineBytes)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := take(n, lines.Text()); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d: longer than %d bytes", n+1, importLineBytes)
	}
	return lines.Err()
}

func readHeader(cells []string) ([]string, error) {
	columns := make([]string, len(cells))
	seen := map[string]bool{}
	for i, cell := range cells {
		name := strings.ToLower(strings.TrimSpace(cell))
		if importFields[name] == nil && len(cells) == 1 && strings.ContainsAny(cell, ";\t") {
			return nil, fmt.Errorf("line 1: %q is one column: separate them by commas", bounded(cell))
		}
		if importFields[name] == nil {
			return nil, fmt.Errorf("line 1: unknown column %q: the columns are tenant, domain, mode, pool, labels, signs_for, targets, key_file, selector", bounded(cell))
		}
		if seen[name] {
			return nil, fmt.Errorf("line 1: column %q is there twice", name)
		}
		seen[name] = true
		columns[i] = name
	}
	for _, required := range []string{"tenant", "domain"} {
		if !seen[required] {
			return nil, fmt.Errorf("line 1: column %q is missing", required)
		}
	}
	return columns, nil
}

// fill reads the cells of a line.
func (r *importRow) fill(columns, cells []string, dir string) error {
	if len(cells) != len(columns) {
		return fmt.Errorf("%s, but the header has %d", plural(len(cells), "field"), len(columns))
	}
	for i, name := range columns {
		if err := importFields[name](r, strings.TrimSpace(cells[i]), dir); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// readNDJSON reads one JSON object a line, an item of the API's import.
func readNDJSON(in io.Reader, take func(importRow, error) error) error {
	return eachRow(in, func(n int, text string) error {
		row := importRow{line: n}
		return take(row, row.decode(text))
	})
}

func (r *importRow) decode(text string) error {
	if !utf8.ValidString(text) {
		return errNotUTF8 // encoding/json would put something else in its place
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r.item); err != nil {
		return fmt.Errorf("not the JSON expected: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON object: one a line")
	}
	return nil
}

// readLabels reads "tier=gold;region=eu-1".
func readLabels(cell string) (map[string]string, error) {
	if cell == "" {
		return nil, nil
	}
	labels := map[string]string{}
	for _, part := range strings.Split(cell, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not name=value;name=value", bounded(cell))
		}
		if _, twice := labels[name]; twice {
			return nil, fmt.Errorf("%q is there twice", bounded(name))
		}
		labels[name] = value
	}
	return labels, nil
}

// readTargets reads "k1=…;k2=…;k3=…;bounce=…;click=…;dmarc=…": existing owner
// names of a platform zone. With Ed25519 keys, ke1 to ke3 follow.
func readTargets(cell string) (*api.NewTargets, error) {
	if cell == "" {
		return nil, nil
	}
	given, err := readLabels(cell)
	if err != nil {
		return nil, err
	}
	t := &api.NewTargets{Bounce: given["bounce"], Click: given["click"], DMARC: given["dmarc"]}
	for _, slots := range [][]string{{"k1", "k2", "k3"}, {"ke1", "ke2", "ke3"}} {
		there := 0
		for _, slot := range slots {
			if given[slot] != "" {
				t.Keys = append(t.Keys, given[slot])
				there++
			}
			delete(given, slot)
		}
		if there != 0 && there != len(slots) {
			return nil, fmt.Errorf("give all of %s or none", strings.Join(slots, ", "))
		}
	}
	for _, name := range []string{"bounce", "click", "dmarc"} {
		delete(given, name)
	}
	for name := range given {
		return nil, fmt.Errorf("%q is no target: they are k1 to k3, ke1 to ke3, bounce, click, dmarc", bounded(name))
	}
	return t, nil
}

// readKeyFile reads an existing private key, relative to the import file.
func readKeyFile(r *importRow, cell, dir string) error {
	if cell == "" {
		return nil
	}
	if !filepath.IsAbs(cell) {
		cell = filepath.Join(dir, cell)
	}
	text, err := os.ReadFile(cell)
	if err != nil {
		return err
	}
	r.key().PrivateKey = api.PrivateText(text)
	return nil
}

// bounded is the beginning of an input, for messages.
func bounded(text string) string {
	const most = 100
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
