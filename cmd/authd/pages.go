package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
)

// items is the reply of every list; next is there while pages follow.
type items struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next"`
}

// pageLimit is how many items the client asks for at once.
const pageLimit = "500"

// pages gets every page of a list, with the items' JSON as one array.
func pages[T any](ctx context.Context, c *client, path string, query url.Values) ([]T, []byte, error) {
	q := url.Values{"limit": {pageLimit}}
	maps.Copy(q, query)
	var all []T
	raws := []json.RawMessage{}
	for {
		var reply items
		if _, err := c.get(ctx, path, q, &reply); err != nil {
			return nil, nil, err
		}
		for _, raw := range reply.Items {
			var item T
			if err := json.Unmarshal(raw, &item); err != nil {
				return nil, nil, fmt.Errorf("reading reply of GET %s: %w", path, err)
			}
			all, raws = append(all, item), append(raws, raw)
		}
		if reply.Next == "" {
			break
		}
		q.Set("cursor", reply.Next)
	}
	text, err := json.Marshal(raws)
	return all, text, err
}

// because is the query of a write with its reason, where there is one.
func because(reason string) url.Values {
	q := url.Values{}
	if reason != "" {
		q.Set("reason", reason)
	}
	return q
}
