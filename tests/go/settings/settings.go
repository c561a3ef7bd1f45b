// Package settings holds what a partner's operator hands over, from the environment, and the conversation with the test.
package settings

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"strings"
)

// What an operator hands over.
var (
	TenantAuthorityURL = os.Getenv("TENANT_AUTHORITY_URL")
	CloudAPIURL        = os.Getenv("CLOUD_API_URL")
	ClientID           = os.Getenv("CLIENT_ID")
	ClientSecret       = os.Getenv("CLIENT_SECRET")
	RedirectURI        = os.Getenv("REDIRECT_URI")
	Scopes             = strings.Fields(os.Getenv("SCOPE"))
)

var input = bufio.NewScanner(os.Stdin)

// Hear returns the next line of standard input, and whether there was one.
func Hear() (string, bool) {
	ok := input.Scan()
	return input.Text(), ok
}

// Say prints a value as a line of JSON.
func Say(what any) {
	line, err := json.Marshal(what)
	Check(err)
	fmt.Println(string(line))
}

// Step prints a step with its result, which JSON has to represent by an object.
func Step(name string, result any) {
	encoded, err := json.Marshal(result)
	Check(err)
	members := map[string]any{}
	Check(json.Unmarshal(encoded, &members))
	line := map[string]any{"step": name}
	maps.Copy(line, members)
	Say(line)
}

// Check ends the program if there is an error.
func Check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
