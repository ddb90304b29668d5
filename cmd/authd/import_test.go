package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readAll(t *testing.T, text string) ([]importRow, []badLine) {
	t.Helper()
	rows, bad, err := readImport(strings.NewReader(text), "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return rows, bad
}

func TestImportReadsTheThousandCustomers(t *testing.T) {
	f, err := os.Open(customersFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, bad, err := readImport(f, "", "")
	if err != nil || len(bad) > 0 || len(rows) != customersCount {
		t.Fatalf("%d rows, bad lines %v, error %v", len(rows), bad, err)
	}
	for i, c := range generateCustomers() {
		r := rows[i]
		if r.line != i+2 || r.item.Tenant != c.tenant || r.item.Domain != c.domain || r.item.Mode != c.mode || r.item.Pool != c.pool {
			t.Fatalf("line %d is %+v, not %+v", r.line, r, c)
		}
	}
}

func TestImportTakesEitherFormatAlike(t *testing.T) {
	csvRows, bad := readAll(t, "domain,tenant,mode,labels,signs_for\n"+
		"send.a.example,acme,delegated,tier=gold; region=eu,a.example b.example\n"+
		"b.example,acme,cname,,\n")
	if len(bad) > 0 {
		t.Fatal(bad)
	}
	jsonRows, bad := readAll(t, `
{"tenant":"acme","domain":"send.a.example","mode":"delegated","labels":{"tier":"gold","region":"eu"},"signs_for":["a.example","b.example"]}

{"tenant":"acme","domain":"b.example","mode":"cname"}
`)
	if len(bad) > 0 {
		t.Fatal(bad)
	}
	for i := range csvRows {
		csvRows[i].line, jsonRows[i].line, csvRows[i].item.Line, jsonRows[i].item.Line = 0, 0, 0, 0
		if a, b := fmt.Sprintf("%+v", csvRows[i]), fmt.Sprintf("%+v", jsonRows[i]); a != b {
			t.Errorf("CSV  %s\nJSON %s", a, b)
		}
	}
	if len(csvRows) != 2 || len(jsonRows) != 2 {
		t.Errorf("%d and %d rows", len(csvRows), len(jsonRows))
	}
}

func TestImportTellsEveryBadLine(t *testing.T) {
	text := "tenant,domain,mode,labels,targets\n" +
		"acme,send.good.example,delegated,,\n" + // 2
		",send.a.example,,,\n" +
		"acme,,,,\n" +
		"acme,send..example,,,\n" +
		"acme,bücher.example,,,\n" +
		"acme,*.a.example,,,\n" +
		"acme,send.b.example,both,,\n" +
		"acme,SEND.good.example.,,,\n" + // 9: again
		"acme,send.c.example,,oops,\n" +
		"acme,send.d.example,,a=1;a=2,\n" +
		"acme,send.e.example\n" +
		"acme,e.example,cname,,k1=x.p-dns.test\n" +
		"acme,f.example,cname,,what=x.p-dns.test\n" +
		"acme,send.h.example,,,,more\n" +
		"acme,\"send.g.example,,,\n"
	rows, bad := readAll(t, text)
	if len(rows) != 1 {
		t.Errorf("%d rows were good, not 1", len(rows))
	}
	want := []struct {
		line int
		has  string
	}{
		{3, "tenant: missing"}, {4, "domain: missing"}, {5, "domain: "}, {6, "domain: "}, {7, "domain: "},
		{8, `mode: "both" is neither`}, {9, "send.good.example of tenant acme is on line 2 already"},
		{10, `labels: "oops"`}, {11, `labels: "a" is there twice`}, {12, "2 fields, but the header has 5"},
		{13, "targets: give all of k1, k2, k3 or none"}, {14, `targets: "what" is no target`}, {15, "6 fields, but the header has 5"}, {16, "not CSV"},
	}
	if len(bad) != len(want) {
		t.Fatalf("%d bad lines, not %d: %v", len(bad), len(want), bad)
	}
	for i, w := range want {
		if bad[i].line != w.line || !strings.Contains(bad[i].reason, w.has) {
			t.Errorf("bad line %+v, not line %d with %q", bad[i], w.line, w.has)
		}
	}
}

func TestImportTellsBadJSONLines(t *testing.T) {
	rows, bad := readAll(t, `{"tenant":"acme","domain":"send.a.example"}
{"tenant":"acme","domain":"send.b.example","colour":"red"}
{"tenant":"acme","domain":7}
{"tenant":"acme"} {"tenant":"globex"}
not json
`)
	if len(rows) != 1 || len(bad) != 4 {
		t.Fatalf("%d rows, bad lines %v", len(rows), bad)
	}
	for i, has := range []string{"colour", "number", "something follows", "not the JSON"} {
		if bad[i].line != i+2 || !strings.Contains(bad[i].reason, has) {
			t.Errorf("bad line %+v, not line %d with %q", bad[i], i+2, has)
		}
	}
}

// Spreadsheets write a byte order mark; a tenant may have a name in both modes.
func TestImportTakesAByteOrderMarkAndBothModesOfAName(t *testing.T) {
	rows, bad := readAll(t, "\ufefftenant,domain,mode\nacme,a.example,cname\nacme,a.example,delegated\nacme,a.example,cname\n")
	if len(rows) != 2 || len(bad) != 1 || bad[0].line != 4 || !strings.Contains(bad[0].reason, "on line 2 already") {
		t.Errorf("%d rows, bad lines %+v", len(rows), bad)
	}
}

// Behind the mark the first column may be quoted, or the file may be NDJSON.
func TestImportTakesAByteOrderMarkBeforeAnything(t *testing.T) {
	for _, text := range []string{
		"\ufeff\"tenant\",\"domain\"\r\n\"acme\",\"send.a.example\"\r\n",
		"\ufeff{\"tenant\":\"acme\",\"domain\":\"send.a.example\"}\n",
	} {
		rows, bad := readAll(t, text)
		if len(rows) != 1 || len(bad) != 0 || rows[0].item.Tenant != "acme" || rows[0].item.Domain != "send.a.example" {
			t.Errorf("%q: %+v, bad lines %+v", text, rows, bad)
		}
	}
}

// A quote that nobody closes is told, and the lines behind it are read: with
// --skip-bad they would be lost without a word.
func TestImportStrayQuoteSpoilsItsOwnLineAlone(t *testing.T) {
	rows, bad := readAll(t, "tenant,domain,labels\n"+
		"acme,send.a.example,\"tier=gold\n"+
		"acme,send.b.example,\n"+
		"acme,send.c.example,tier=\"gold\"\n"+
		"acme,send.d.example,\"tier=gold\"\n")
	if len(rows) != 2 || rows[0].line != 3 || rows[1].line != 5 || rows[1].item.Labels["tier"] != "gold" {
		t.Errorf("%+v", rows)
	}
	if len(bad) != 2 || bad[0].line != 2 || bad[1].line != 4 || !strings.Contains(bad[0].reason, "not CSV") {
		t.Errorf("bad lines %+v", bad)
	}
}

// What is not UTF-8 would reach the server as something else.
func TestImportRefusesLinesThatAreNotUTF8(t *testing.T) {
	for _, text := range []string{
		"tenant,domain,labels\nacme,send.a.example,city=M\xfcnchen\n",
		"\n" + `{"tenant":"acme","domain":"send.a.example","labels":{"city":"M` + "\xfc" + `nchen"}}` + "\n",
	} {
		rows, bad := readAll(t, text)
		if len(rows) != 0 || len(bad) != 1 || bad[0].line != 2 || !strings.Contains(bad[0].reason, "save the file as UTF-8") {
			t.Errorf("%q: %d rows, bad lines %+v", text, len(rows), bad)
		}
	}
}

func TestImportRefusesAFileItCannotRead(t *testing.T) {
	for text, has := range map[string]string{
		"tenant;domain;mode\n": "separate them by commas",
		"\xff\xfet\x00e\x00":   "UTF-16",
		"\"tenant,domain\n":    "line 1: the header is not CSV",
		"tenant,domain\nacme," + strings.Repeat("x", importLineBytes): "line 2: longer than",
		"":                           "empty",
		"tenant,domain,colour\n":     `unknown column "colour"`,
		"tenant,mode\n":              `column "domain" is missing`,
		"tenant,domain,tenant\n":     `column "tenant" is there twice`,
		"send.a.example,acme\na,b\n": "unknown column",
	} {
		_, _, err := readImport(strings.NewReader(text), "", "")
		if err == nil || !strings.Contains(err.Error(), has) {
			t.Errorf("%q: %v, not %q", text, err, has)
		}
	}
}

func TestImportReadsKeysBesideTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := secretFile(filepath.Join(dir, "a.pem"), []byte("PEM")); err != nil {
		t.Fatal(err)
	}
	text := "tenant,domain,key_file,selector\nacme,send.a.example,a.pem,s2024\nacme,send.b.example,none.pem,s1\nacme,send.c.example,,s1\n"
	rows, bad, err := readImport(strings.NewReader(text), "", dir)
	if err != nil || len(rows) != 1 || len(bad) != 2 {
		t.Fatalf("rows %v, bad lines %v, error %v", rows, bad, err)
	}
	if k := rows[0].item.Keys; len(k) != 1 || k[0].Selector != "s2024" || k[0].PrivateKey != "PEM" {
		t.Errorf("the keys are %+v", k)
	}
}

func FuzzReadImport(f *testing.F) {
	f.Add("tenant,domain,mode,pool,labels\nacme,send.a.example,delegated,default,a=b\n")
	f.Add(`{"tenant":"acme","domain":"send.a.example","mode":"cname"}`)
	f.Add("tenant,domain\n\"a\nb\",c\n")
	f.Add("\ufefftenant,domain,targets\na,b.example,k1=x;k2=y;k3=z\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		rows, bad, err := readImport(strings.NewReader(text), "", dir)
		if err != nil && len(rows)+len(bad) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d rows and %d bad lines in %q", len(rows), len(bad), text)
		}
		for _, r := range rows {
			if r.item.Tenant == "" || r.item.Domain == "" || r.line < 1 {
				t.Fatalf("row %+v was taken", r)
			}
		}
	})
}
