import { afterEach, describe, expect, it } from "vitest";
import { chooseAnswer, type ScriptedModel, script, startScriptedModel } from "./scripted-model.js";

const prompt = {
  role: "user",
  content: script(["exec", { command: "id" }], ["read", { path: "a\nb" }]),
};
const context = { role: "user", content: [{ type: "text", text: "Runtime context: it is Sunday." }] };
const called = { role: "assistant", content: null, tool_calls: [{}] };
const result = (text: string) => ({ role: "tool", content: text });

describe("the scripted model's answer", () => {
  it("is the n-th call while n results follow the script", () => {
    expect(chooseAnswer([prompt, context])).toMatchObject({ tool: "exec", args: '{"command":"id"}' });
    expect(chooseAnswer([prompt, context, called, result("uid=0")])).toMatchObject({
      tool: "read",
      args: '{"path":"a\\nb"}',
    });
  });

  it("is DONE and the last result when every call has one", () => {
    const messages = [prompt, context, called, result("uid=0"), called, result("text")];
    expect(chooseAnswer(messages)).toEqual({ kind: "text", text: "DONE text" });
  });

  it("never repeats a script that was answered, and finds the next one", () => {
    const answered = [
      prompt,
      called,
      result("1"),
      called,
      result("2"),
      { role: "assistant", content: "DONE 2" },
    ];
    expect(chooseAnswer([...answered, { role: "user", content: "hello" }])).toMatchObject({ kind: "text" });
    expect(chooseAnswer([...answered, prompt])).toMatchObject({ kind: "call", tool: "exec" });
  });

  it("finds a call behind the time stamp that OpenClaw puts before the first line", () => {
    const content = '[Sun 2026-11-22 16:43 UTC] @@call exec {"command":"id"}';
    expect(chooseAnswer([{ role: "user", content }])).toMatchObject({ kind: "call", tool: "exec" });
    expect(chooseAnswer([{ role: "user", content: `say ${content}` }])).toMatchObject({ kind: "text" });
  });

  it("says which call of a script is not JSON", () => {
    const answer = chooseAnswer([{ role: "user", content: "@@call exec {oops" }]);
    expect(answer).toMatchObject({ kind: "text" });
    expect((answer as { text: string }).text).toMatch(/^SCRIPT ERROR in call 1 \(exec\)/);
  });
});

describe("the scripted model's server", () => {
  let model: ScriptedModel | undefined;
  afterEach(async () => {
    await model?.close();
    model = undefined;
  });
  const ask = (url: string, key: string) =>
    fetch(`${url}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({ stream: true, messages: [prompt] }),
    });

  it("streams a tool call to a caller with the key and refuses one without", async () => {
    model = await startScriptedModel({ apiKey: "right" });
    expect((await ask(model.url, "wrong")).status).toBe(401);
    const answer = await ask(model.url, "right");
    const text = await answer.text();
    expect(answer.status).toBe(200);
    expect(text).toContain('"name":"exec"');
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(model.requests.map((request) => [request.status, request.authorization])).toEqual([
      [401, "Bearer wrong"],
      [200, "Bearer right"],
    ]);
  });
});
