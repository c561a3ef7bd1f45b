{{- define "accord.name" -}}
{{- if contains "accord" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-accord" .Release.Name }}{{ end }}
{{- end }}

{{/* What selects the pods of a component. Takes (list $ "component"). */}}
{{- define "accord.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: accord
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "accord.labels" -}}
{{- $root := index . 0 -}}
{{ include "accord.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* Takes an image and the tag that it has by default. */}}
{{- define "accord.image" -}}
{{- $image := index . 0 -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default (index . 1) }}{{ end }}
{{- end }}

{{/* The name by which pods reach a component, and which its certificate has. */}}
{{- define "accord.host" -}}
{{- $root := index . 0 -}}
{{ include "accord.name" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc
{{- end }}

{{- define "accord.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# Secrets are then files of root that this group may read.
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "accord.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* What every pod has. Takes (list $ "component" values-of-the-component). */}}
{{- define "accord.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ $root.Values.serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ include "accord.podSecurity" . | nindent 2 }}
# Above the delay before a drain and the ten seconds of the drain.
terminationGracePeriodSeconds: {{ add $root.Values.drainDelaySeconds 30 }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    # A replica on a crowded node is better than none.
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: { {{- include "accord.selector" (list $root $component) | replace "\n" ", " -}} } }
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The environment of a service or of its migration. Takes (list $ "registry" settings secret-of-the-URL). */}}
{{- define "accord.environment" -}}
{{- $root := index . 0 -}}
{{- $prefix := printf "ACCORD_%s_" (upper (index . 1)) -}}
{{- $secret := index . 3 -}}
- name: {{ $prefix }}DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ $secret.name }}, key: {{ $secret.key }} } }
{{- range $flag, $value := index . 2 }}
- name: {{ $prefix }}{{ $flag | replace "-" "_" | upper }}
  {{- /* A number of values.yaml is a float. */}}
  value: {{ (kindIs "float64" $value | ternary ($value | toJson) $value) | quote }}
{{- end }}
# Read again when the database refuses the password. A URL with a password of its own needs no such file.
- name: PGPASSFILE
  value: /etc/accord/password/pgpass
{{- if $root.Values.database.caSecret.name }}
- name: PGSSLROOTCERT
  value: /etc/accord/database/ca.crt
{{- end }}
{{- end }}

{{- define "accord.databaseMounts" -}}
- { name: password, mountPath: /etc/accord/password, readOnly: true }
{{- if .Values.database.caSecret.name }}
- { name: database, mountPath: /etc/accord/database, readOnly: true }
{{- end }}
{{- end }}

{{/* What a pod reads to reach its database. Takes (list $ secret-of-the-URL). */}}
{{- define "accord.databaseVolumes" -}}
{{- $root := index . 0 -}}
{{- $secret := index . 1 -}}
- name: password
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0400
    optional: true
    items: [{ key: pgpass, path: pgpass }]
{{- with $root.Values.database.caSecret }}
{{- if .name }}
- name: database
  secret:
    secretName: {{ .name }}
    defaultMode: 0400
    items: [{ key: {{ .key }}, path: ca.crt }]
{{- end }}
{{- end }}
{{- end }}

{{/* The Deployment and the Service of a service. Takes (list $ "registry" values settings ports volumes), where volumes
are names of directories below /etc/accord with their Secrets. */}}
{{- define "accord.service" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- $settings := mergeOverwrite (index . 3) $values.settings -}}
{{- $ports := index . 4 -}}
{{- $volumes := index . 5 -}}
{{- $name := printf "%s-%s" (include "accord.name" $root) $component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{ include "accord.labels" (list $root $component) | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels: {{ include "accord.selector" (list $root $component) | nindent 6 }}
  strategy: { type: RollingUpdate, rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } }
  template:
    metadata:
      labels: {{ include "accord.labels" (list $root $component) | nindent 8 }}
      {{- with $values.podAnnotations }}
      annotations: {{ toYaml . | nindent 8 }}
      {{- end }}
    spec: {{ include "accord.pod" (list $root $component $values) | nindent 6 }}
      containers:
        - name: {{ $component }}
          image: {{ include "accord.image" (list $root.Values.image $root.Chart.AppVersion) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [{{ $component }}-service, serve]
          env: {{ include "accord.environment" (list $root $component $settings $values.databaseUrlSecret) | nindent 12 }}
          {{- with $values.env }}
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- range $port, $number := $ports }}
            - { name: {{ $port }}, containerPort: {{ $number }} }
            {{- end }}
            - { name: admin, containerPort: 9464 }
          # Over HTTP: a kubelet has no client certificate. /livez depends on no database, so that an outage of it restarts
          # nothing.
          startupProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 2, failureThreshold: 30 }
          livenessProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6 }
          readinessProbe: { httpGet: { path: /readyz, port: admin }, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 2 }
          resources: {{ toYaml $values.resources | nindent 12 }}
          securityContext: {{ include "accord.containerSecurity" . | nindent 12 }}
          volumeMounts:
            {{- range $directory, $secret := $volumes }}
            - { name: {{ $directory }}, mountPath: /etc/accord/{{ $directory }}, readOnly: true }
            {{- end }}
            {{- include "accord.databaseMounts" $root | nindent 12 }}
      volumes:
        {{- range $directory, $secret := $volumes }}
        - name: {{ $directory }}
          secret: { secretName: {{ $secret }}, defaultMode: 0400 }
        {{- end }}
        {{- include "accord.databaseVolumes" (list $root $values.databaseUrlSecret) | nindent 8 }}
---
# Headless: callers see every replica, and balance over them.
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{ include "accord.labels" (list $root $component) | nindent 4 }}
spec:
  clusterIP: None
  ipFamilyPolicy: {{ $root.Values.ipFamilyPolicy }}
  selector: {{ include "accord.selector" (list $root $component) | nindent 4 }}
  ports:
    {{- range $port, $number := $ports }}
    - { name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}, appProtocol: {{ ternary "grpc" "https" (eq $port "grpc") }} }
    {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{ include "accord.labels" (list $root $component) | nindent 4 }}
spec:
  # Not minAvailable, which would block the drain of a node for ever where there is one replica.
  maxUnavailable: 1
  # Pods that are not ready serve nobody: they must not block it either.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{ include "accord.selector" (list $root $component) | nindent 6 }}
{{- end }}
