{{/* A rule that admits peers to ports, if there are any. Takes (list peers port...). */}}
{{- define "accord.peers" }}
{{- $peers := index . 0 }}
{{- $ports := list }}
{{- range rest . }}
{{- $ports = append $ports (dict "protocol" "TCP" "port" (int .)) }}
{{- end }}
{{- if $peers }}{{ toYaml (list (dict "from" $peers "ports" $ports)) }}{{ end }}
{{- end }}

{{- define "accord.egressDns" }}
{{- $ports := list }}
{{- range .Values.networkPolicy.dnsPorts }}
{{- $ports = concat $ports (list (dict "protocol" "UDP" "port" (int .)) (dict "protocol" "TCP" "port" (int .))) }}
{{- end }}
{{- /* To any address: a cache on the node is no pod. */ -}}
{{ toYaml (list (dict "ports" $ports)) }}
{{- end }}

{{- define "accord.egressDatabase" }}
{{- $rule := dict "ports" (list (dict "protocol" "TCP" "port" (int .Values.networkPolicy.databasePort))) }}
{{- with .Values.networkPolicy.database }}{{ $_ := set $rule "to" . }}{{ end }}
{{- toYaml (list $rule) }}
{{- end }}
