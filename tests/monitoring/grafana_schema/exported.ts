// What an exported dashboard has to be, composed of the types that Grafana publishes.
//
// Grafana's own `Dashboard` says little about what is in a panel: its options, its custom field configuration and its
// queries are records of anything. Here each kind of panel that the dashboards use is given the types of its plugin.
//
// What no published type says: which transformations, reducers, units, icons and colours exist; what the value of an
// override is for its property; whether a field, a variable or a dashboard that a text refers to exists; that panels
// don't overlap; and the queries of Prometheus, whose type isn't in the package: `Target` below is ours.

import type {
  Dashboard,
  DataQuery,
  FieldConfig,
  FieldConfigSource,
  Panel,
  RowPanel,
} from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.d.ts";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

// JSON has the values of enumerations, and TypeScript takes no value where it wants a member: this puts literals in
// their place, everywhere.
type Json<T> = T extends string
  ? string extends T ? T : `${T}`
  : T extends number
    ? number extends T ? T : `${T}` extends `${infer N extends number}` ? N : never
    : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

type Without<T, K extends PropertyKey> = { [P in keyof T as P extends K ? never : P]: T[P] };

interface Target extends DataQuery {
  datasource: { type: "prometheus"; uid: string };
  editorMode: "code";
  expr: string;
  format?: "time_series" | "table" | "heatmap";
  instant: boolean;
  legendFormat: string;
  range: boolean;
}

// In the lists of thresholds, Grafana's null stands for the lowest number, which JSON can't write.
type Thresholds = {
  mode: NonNullable<FieldConfig["thresholds"]>["mode"];
  steps: { color: string; value: number | null }[];
};

type Fields<Custom> = Without<FieldConfigSource, "defaults"> & {
  defaults: Without<FieldConfig, "custom" | "thresholds"> & { custom?: Custom; thresholds?: Thresholds };
};

type Shown<Type extends string, Options, Custom> = Without<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  description: string;
  fieldConfig: Fields<Custom>;
  gridPos: NonNullable<Panel["gridPos"]>;
  id: number;
  options: Options;
  targets: Target[];
  title: string;
  type: Type;
};

type AnyPanel =
  | Shown<"timeseries", timeseries.Options, timeseries.FieldConfig>
  | Shown<"stat", stat.Options, never>
  | Shown<"table", table.Options, table.FieldConfig>
  | Shown<"heatmap", heatmap.Options, heatmap.FieldConfig>;

type AnyRow = Without<RowPanel, "panels"> & { panels: AnyPanel[] };

export type Exported = Json<Without<Dashboard, "panels"> & { panels: (AnyPanel | AnyRow)[]; uid: string }>;
