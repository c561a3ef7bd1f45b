{{/* deploy/envoy.yaml for a cluster, with the listener for partners if there is one: it listens for other machines, for the
host of publicBaseUrl and that of partners, reads certificates again
when they change, and reaches every replica of the services over mutual TLS. */}}
{{- define "accord.envoy" -}}
{{- $text := .Files.Get "files/envoy.yaml" -}}
{{- $hosts := list (urlParse .Values.publicBaseUrl).hostname -}}
{{- with .Values.gateway.partners.baseUrl }}
{{- /* Its listener uses anchors of the first one, so they are one document. */}}
{{- $text = replace "\n  clusters:\n" (printf "\n%s\n  clusters:\n" ($.Files.Get "files/partners.yaml")) $text }}
{{- $hosts = append $hosts (urlParse .).hostname }}
{{- end }}
{{- $envoy := $text | fromYaml -}}

{{- /* Files of secrets are read through an API that requires a name. */}}
{{- $_ := set $envoy "node" (dict "id" "gateway" "cluster" "accord") -}}
{{- range $index, $listener := $envoy.static_resources.listeners }}
{{- $address := dict "address" "0.0.0.0" "port_value" (add 8443 $index) }}
{{- if contains ":" $.Values.listenHost }}{{ $_ := set $address "address" "::" }}{{ $_ := set $address "ipv4_compat" true }}{{ end }}
{{- $_ := set $listener "address" (dict "socket_address" $address) }}
{{- $chain := index $listener.filter_chains 0 }}
{{- $tls := $chain.transport_socket.typed_config.common_tls_context }}
{{- $_ := set $tls "tls_certificate_sds_secret_configs" (list (include "accord.envoySecret" (list "public" "public-certificate" "public") | fromYaml)) }}
{{- $http := (index $chain.filters 0).typed_config }}
{{- range $http.http_filters }}
{{- if eq .name "json-to-grpc" }}{{ $_ := set .typed_config "proto_descriptor" "/contract/accord.bin" }}{{ end }}
{{- end }}
{{- $_ := set (index $http.route_config.virtual_hosts 0) "domains" (list (index $hosts $index)) }}
{{- end }}

{{- range $cluster := $envoy.static_resources.clusters }}
{{- $component := hasPrefix "registry-" $cluster.name | ternary "registry" "token" }}
{{- $service := include "accord.host" (list $ $component) }}
{{- $port := hasSuffix "-grpc" $cluster.name | ternary (eq $component "registry" | ternary 50051 50052) 8080 }}
{{- $_ := set $cluster "type" "STRICT_DNS" }}
{{- /* One address of each replica; the other family where this one is missing. */}}
{{- $_ := set $cluster "dns_lookup_family" "V4_PREFERRED" }}
{{- $_ := set $cluster "lb_policy" "LEAST_REQUEST" }}
{{- $endpoint := dict "address" (dict "socket_address" (dict "address" $service "port_value" $port)) }}
{{- $_ := set $cluster "load_assignment" (dict "cluster_name" $cluster.name "endpoints" (list (dict "lb_endpoints" (list (dict "endpoint" $endpoint))))) }}
{{- /* With few replicas left, requests go to none of those that fail. */}}
{{- $_ := set $cluster "common_lb_config" (dict "healthy_panic_threshold" (dict "value" 0)) }}
{{- $_ := set $cluster "close_connections_on_host_health_failure" true }}
{{- /* TCP_USER_TIMEOUT: what a silent host has not acknowledged in time is never delivered, when its client has gone on. */}}
{{- $_ := set $cluster "upstream_bind_config" (dict "socket_options" (list (dict "level" 6 "name" 18 "int_value" 2000))) }}
{{- /* Notices within a second that a replica stops or can't serve. */}}
{{- $check := dict "interval" "0.5s" "timeout" "0.5s" "unhealthy_threshold" 1 "healthy_threshold" 1 "no_traffic_interval" "0.5s" }}
{{- if eq (int $port) 8080 }}
{{- $_ := set $check "http_health_check" (dict "path" "/healthz" "codec_client_type" "HTTP2") }}
{{- else }}
{{- $_ := set $check "grpc_health_check" dict }}
{{- end }}
{{- $_ := set $cluster "health_checks" (list $check) }}
{{- $_ := set $cluster "transport_socket" (include "accord.envoyUpstream" $service | fromYaml) }}
{{- end }}
{{- $envoy | toYaml }}
{{- end }}

{{/* TLS to a service of this name. */}}
{{- define "accord.envoyUpstream" -}}
name: envoy.transport_sockets.tls
typed_config:
  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
  sni: {{ . }}
  # A resumed session would keep a certificate that was replaced.
  max_session_keys: 0
  common_tls_context:
    alpn_protocols: [h2]
    tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }
    tls_certificate_sds_secret_configs: [{{ include "accord.envoySecret" (list "client" "client-certificate" "client") | fromYaml | toJson }}]
    combined_validation_context:
      default_validation_context:
        match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: {{ . }} } }]
      validation_context_sds_secret_config: {{ include "accord.envoySecret" (list "services-ca" "services-ca" "client") | fromYaml | toJson }}
{{- end }}

{{- define "accord.envoySecret" -}}
name: {{ index . 0 }}
sds_config:
  resource_api_version: V3
  path_config_source: { path: /etc/accord/envoy/{{ index . 1 }}.yaml }
{{- end }}

{{- define "accord.envoyCertificate" -}}
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: {{ . }}
    tls_certificate:
      certificate_chain: { filename: /etc/accord/{{ . }}/tls.crt }
      private_key: { filename: /etc/accord/{{ . }}/tls.key }
      watched_directory: { path: /etc/accord/{{ . }} }
{{- end }}

{{- define "accord.envoyAuthority" -}}
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: services-ca
    validation_context:
      trusted_ca: { filename: /etc/accord/client/ca.crt }
      watched_directory: { path: /etc/accord/client }
{{- end }}
