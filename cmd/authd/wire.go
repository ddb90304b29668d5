package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
)

// items is the reply of every list; next is there while pages follow.
type items struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next"`
}

// pageLimit is how many items the client asks for at once.
const pageLimit = "500"

// list gets a list that comes whole, with its items' JSON as one array.
func list[T any](ctx context.Context, c *client, path string) ([]T, []byte, error) {
	return collect[T](ctx, c, path, nil)
}

// pages gets every page of a list.
func pages[T any](ctx context.Context, c *client, path string, query url.Values) ([]T, []byte, error) {
	q := url.Values{"limit": {pageLimit}}
	for k, v := range query {
		q[k] = v
	}
	return collect[T](ctx, c, path, q)
}

func collect[T any](ctx context.Context, c *client, path string, query url.Values) ([]T, []byte, error) {
	var all []T
	raws := []json.RawMessage{}
	for {
		var reply items
		if _, err := c.get(ctx, path, query, &reply); err != nil {
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
		query.Set("cursor", reply.Next)
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
