{{- define "whatsapp.pod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: { app.kubernetes.io/name: {{ .name }} } }
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: { app.kubernetes.io/name: {{ .name }} } }
containers:
  - name: {{ .name }}
    image: "{{ .image.repository }}:{{ .image.tag }}"
    ports:
      {{- range $name, $port := .ports }}
      - { name: {{ $name }}, containerPort: {{ $port }} }
      {{- end }}
    envFrom:
      - configMapRef: { name: whatsapp }
    env:
      {{- range .secret.keys }}
      - { name: {{ . }}_FILE, value: /secrets/{{ . }} }
      {{- end }}
    volumeMounts:
      - { name: secrets, mountPath: /secrets, readOnly: true }
    startupProbe:
      httpGet: { path: /health, port: admin }
      periodSeconds: 1
      failureThreshold: 30
    livenessProbe:
      httpGet: { path: /health, port: admin }
      periodSeconds: 10
      timeoutSeconds: 2
    readinessProbe:
      httpGet: { path: /ready, port: {{ .ready.port }} }
      periodSeconds: {{ .ready.period }}
      timeoutSeconds: 2
    resources: {{- toYaml .resources | nindent 6 }}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: { drop: [ALL] }
volumes:
  - name: secrets
    secret: { secretName: {{ .secret.name }} }
{{- end }}

{{- define "whatsapp.labels" -}}
app.kubernetes.io/part-of: whatsapp
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
