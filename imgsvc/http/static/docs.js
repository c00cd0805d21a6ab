// Shows /openapi.json: each call with its parameters, bodies and answers, as plain text nodes.
"use strict";

const make = (tag, attributes = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
};

let definitions = {};

// The shape of a schema as indented text; `seen` ends recursion.
const shape = (schema, indent = "", seen = []) => {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return seen.includes(name) ? name : shape(definitions[name], indent, [...seen, name]);
  }
  if (schema.anyOf) return schema.anyOf.map((s) => shape(s, indent, seen)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  if (schema.type === "array") return `[ ${shape(schema.items, indent, seen)}, … ]`;
  if (schema.properties) {
    const deeper = indent + "  ";
    const required = schema.required || [];
    const lines = Object.entries(schema.properties).map(([name, value]) => {
      const optional = required.includes(name) ? "" : "?";
      const note = value.description ? `   // ${value.description}` : "";
      return `${deeper}${name}${optional}: ${shape(value, deeper, seen)}${note}`;
    });
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  return schema.format ? `${schema.type} (${schema.format})` : schema.type || "any";
};

const written = (example) =>
  typeof example === "string" ? example : JSON.stringify(example, null, 2);

const bodies = (title, content) =>
  Object.entries(content || {}).flatMap(([media, { schema, example }]) => [
    make("h3", {}, `${title} `, make("code", {}, media)),
    make("pre", {}, shape(schema)),
    ...(example === undefined ? [] : [make("pre", {}, "For example:\n" + written(example))]),
  ]);

const parameters = (list) => {
  if (!list) return [];
  const rows = list.map((p) =>
    make("tr", {},
      make("td", {}, make("code", {}, p.name)),
      make("td", {}, p.in),
      make("td", {}, shape(p.schema)),
      make("td", {}, p.schema.description || "")));
  const head = make("tr", {}, ...["name", "in", "type", ""].map((t) => make("th", {}, t)));
  return [make("h3", {}, "Parameters"), make("table", {}, head, ...rows)];
};

const scopes = (security) =>
  security
    ? [make("p", {}, "Needs the scope ", make("code", {}, security[0].bearer[0]),
        " where callers have to say who they are.")]
    : [];

const call = (path, method, operation) =>
  make("details", {},
    make("summary", {},
      make("span", { className: `method ${method}` }, method.toUpperCase()),
      make("code", {}, path),
      make("span", {}, operation.summary)),
    ...scopes(operation.security),
    ...parameters(operation.parameters),
    ...bodies("Body", operation.requestBody?.content),
    ...Object.entries(operation.responses).flatMap(([status, answer]) =>
      bodies(`${status} ${answer.description}`, answer.content)));

const show = async () => {
  const answer = await fetch("/openapi.json");
  const spec = await answer.json();
  definitions = spec.components.schemas;
  document.getElementById("title").textContent = `${spec.info.title} ${spec.info.version}`;
  document.getElementById("about").textContent = spec.info.description;
  const calls = Object.entries(spec.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => call(path, method, operation)));
  document.getElementById("calls").replaceChildren(...calls);
};

show().catch((error) => {
  document.getElementById("calls").textContent = `The document could not be loaded: ${error}`;
});
