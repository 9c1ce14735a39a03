{{/* The pod that DaemonSet and Deployment share. */}}

{{- define "viplane.podTemplate" -}}
{{- $pod := .Values.pod | default dict -}}
{{- $config := include "viplane.config" . | fromYaml -}}
metadata:
  labels:
    {{- /* Nothing that a new version of the chart alone would change: it would restart the agents. */}}
    {{- include "viplane.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  # VRRP, ARP and the NICs' XDP are the host's.
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  enableServiceLinks: false
  serviceAccountName: {{ include "viplane.serviceAccountName" . }}
  automountServiceAccountToken: {{ or (ne (include "viplane.asksKubeApi" .) "") (ne (len .Values.kubernetes) 0) }}
  priorityClassName: {{ include "viplane.priorityClassName" . }}
  # SIGTERM hands the VIPs over, serves open connections for `grace`, and removes pins, addresses and sysctls.
  terminationGracePeriodSeconds: {{ int .Values.terminationGracePeriodSeconds }}
  {{- with concat (.Values.imagePullSecrets | default list) ($pod.imagePullSecrets | default list) }}
  imagePullSecrets:
    {{- range . }}
    - {{ ternary (dict "name" .) . (kindIs "string" .) | toJson }}
    {{- end }}
  {{- end }}
  {{- with merge (deepCopy ($pod.nodeSelector | default dict)) .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $tolerations := .Values.tolerations }}
  {{- if include "viplane.isPredecessor" . }}
  {{- $tolerations = concat (include "viplane.oldTolerations" . | fromYamlArray) $tolerations }}
  {{- end }}
  {{- with $tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "viplane.affinity" . | fromYaml }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: agent
      image: {{ include "viplane.image" . | quote }}
      imagePullPolicy: {{ ternary "IfNotPresent" .Values.image.pullPolicy (eq (include "viplane.oldImage" .) "true") }}
      args: [run, --config, /etc/viplane/config.yaml]
      env:
        - name: NODE_NAME
          valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
        - name: POD_NAME
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
        - name: POD_NAMESPACE
          valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
        {{- if not .Values.privileged }}
        # /proc/sys is read-only in a container that is not privileged.
        - name: VIPLANE_PROC_SYS
          value: /host/proc/sys
        {{- end }}
        {{- with concat .Values.extraEnv ($pod.extraEnv | default list) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      securityContext:
        runAsUser: 0
        readOnlyRootFilesystem: true
        {{- if .Values.privileged }}
        privileged: true
        {{- else }}
        allowPrivilegeEscalation: false
        capabilities:
          drop: [ALL]
          # docs/prerequisites.md says what for. The agent itself gives up PERFMON, and system calls, once its program is loaded.
          add: [NET_ADMIN, NET_RAW, BPF, PERFMON, SYS_NICE, IPC_LOCK{{ if lt (include "viplane.apiPort" . | int) 1024 }}, NET_BIND_SERVICE{{ end }}]
        {{- end }}
      ports:
        - name: api
          containerPort: {{ include "viplane.apiPort" . }}
          protocol: TCP
      # Says nothing of VIPs: a restart mends no network.
      livenessProbe:
        httpGet:
          path: /healthz
          host: {{ include "viplane.apiHost" . | quote }}
          port: {{ include "viplane.apiPort" . }}
          scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.api.tlsSecret "") }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          host: {{ include "viplane.apiHost" . | quote }}
          port: {{ include "viplane.apiPort" . }}
          scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.api.tlsSecret "") }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- with include "viplane.resources" . | fromYaml }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - { name: config, mountPath: /etc/viplane, readOnly: true }
        - { name: runtime, mountPath: {{ .Values.hostPaths.runtime }} }
        - { name: state, mountPath: {{ .Values.hostPaths.state }} }
        - { name: bpf, mountPath: {{ .Values.hostPaths.bpf }} }
        {{- if not .Values.privileged }}
        - { name: sysctls, mountPath: /host/proc/sys/net }
        {{- end }}
        {{- range include "viplane.secrets" . | fromYamlArray }}
        - { name: {{ .name }}, mountPath: /run/secrets/viplane-{{ .name }}, readOnly: true }
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "viplane.fullname" . }} }
    - name: runtime
      hostPath: { path: {{ .Values.hostPaths.runtime }}, type: DirectoryOrCreate }
    - name: state
      hostPath: { path: {{ .Values.hostPaths.state }}, type: DirectoryOrCreate }
    - name: bpf
      hostPath: { path: {{ .Values.hostPaths.bpf }}, type: Directory }
    {{- if not .Values.privileged }}
    - name: sysctls
      hostPath: { path: /proc/sys/net, type: Directory }
    {{- end }}
    {{- range include "viplane.secrets" . | fromYamlArray }}
    - name: {{ .name }}
      # The agent refuses a secret that others may read.
      secret: { secretName: {{ .secret }}, defaultMode: 0400 }
    {{- end }}
{{- end -}}

{{/* Volumes of Secrets. */}}
{{- define "viplane.secrets" -}}
{{- $secrets := list -}}
{{- if and (include "viplane.isPredecessor" .) (include "viplane.oldPassword" .) -}}
{{- $secrets = append $secrets (dict "name" "auth" "secret" (printf "%s-auth" (include "viplane.fullname" .))) -}}
{{- end -}}
{{- if .Values.signing.enabled }}{{ $secrets = append $secrets (dict "name" "signing" "secret" (include "viplane.signingSecret" .)) }}{{ end -}}
{{- with .Values.api.tlsSecret }}{{ $secrets = append $secrets (dict "name" "tls" "secret" .) }}{{ end -}}
{{- with .Values.api.tokenSecret }}{{ $secrets = append $secrets (dict "name" "token" "secret" .) }}{{ end -}}
{{- toYaml $secrets -}}
{{- end -}}

{{/* Two agents on one node refuse each other: a Deployment's are kept apart. */}}
{{- define "viplane.affinity" -}}
{{- $pod := .Values.pod | default dict -}}
{{- $affinity := merge (deepCopy ($pod.affinity | default dict)) .Values.affinity -}}
{{- if eq (include "viplane.kind" .) "Deployment" -}}
{{- $apart := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "viplane.selectorLabels" . | fromYaml)) -}}
{{- $anti := $affinity.podAntiAffinity | default dict -}}
{{- $required := append ($anti.requiredDuringSchedulingIgnoredDuringExecution | default list) $apart -}}
{{- $_ := set $affinity "podAntiAffinity" (set $anti "requiredDuringSchedulingIgnoredDuringExecution" $required) -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}
