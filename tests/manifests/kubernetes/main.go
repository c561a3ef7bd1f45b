// Reads Kubernetes manifests from standard input, decodes each strictly into the type of the API that it names, and writes
// them to standard output as a JSON array. An unknown or repeated field, and a kind that is not listed here, is an error.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

var kinds = map[string]func() any{
	"v1/ConfigMap":                       func() any { return new(core.ConfigMap) },
	"v1/Service":                         func() any { return new(core.Service) },
	"apps/v1/Deployment":                 func() any { return new(apps.Deployment) },
	"batch/v1/Job":                       func() any { return new(batch.Job) },
	"networking.k8s.io/v1/NetworkPolicy": func() any { return new(networking.NetworkPolicy) },
	"policy/v1/PodDisruptionBudget":      func() any { return new(policy.PodDisruptionBudget) },
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	objects := []any{}
	for _, document := range separator.Split(string(text), -1) {
		object, err := decode([]byte(document))
		if err != nil {
			return fmt.Errorf("%w in\n%s", err, document)
		}
		if object != nil {
			objects = append(objects, object)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(objects)
}

// decode returns the object of a document, or nil if there are only comments.
func decode(document []byte) (any, error) {
	var header struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(document, &header); err != nil {
		return nil, err
	}
	if header.Kind == "" {
		var rest any
		if err := yaml.Unmarshal(document, &rest); err != nil || rest != nil {
			return nil, fmt.Errorf("no kind (%v)", err)
		}
		return nil, nil
	}
	create, known := kinds[header.APIVersion+"/"+header.Kind]
	if !known {
		return nil, fmt.Errorf("unknown kind %s %s", header.APIVersion, header.Kind)
	}
	object := create()
	// Strict about repeated and unknown fields.
	if err := yaml.UnmarshalStrict(bytes.TrimSpace(document), object); err != nil {
		return nil, err
	}
	return object, nil
}
