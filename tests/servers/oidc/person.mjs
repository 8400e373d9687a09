// A person at a browser: opens a page, types a code, signs in, and agrees or refuses.
//
//   node person.mjs URL CODE agrees|refuses

const [start, code, answer] = process.argv.slice(2);
const cookies = new Map();

async function open(url, form) {
  const response = await fetch(url, {
    method: form ? "POST" : "GET",
    body: form,
    redirect: "manual",
    headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join("; ") },
  });
  for (const cookie of response.headers.getSetCookie()) {
    const [, name, value] = cookie.match(/^([^=]+)=([^;]*)/);
    value ? cookies.set(name, value) : cookies.delete(name);
  }
  const to = response.headers.get("location");
  return to ? open(new URL(to, url)) : { url, page: await response.text() };
}

let { url, page } = await open(start);
for (let step = 0; step < 10; step += 1) {
  const action = page.match(/<form[^>]*action="([^"]+)"/)?.[1];
  if (!action) break;
  const form = new URLSearchParams();
  for (const [input] of page.matchAll(/<input[^>]*>/g)) {
    const name = input.match(/name="([^"]+)"/)?.[1];
    const typed = { user_code: code, login: "doctor", password: "any" }[name];
    if (name) form.set(name, typed ?? input.match(/value="([^"]*)"/)?.[1] ?? "");
  }
  // The page that shows the code once more and asks whether it is the one on the device.
  if (form.has("confirm") && answer === "refuses") {
    form.delete("confirm");
    form.set("abort", "yes");
  }
  ({ url, page } = await open(new URL(action, url), form));
  if (form.has("abort")) break;
}
console.log(page.replace(/<(style|script)[^]*?<\/\1>|<[^>]*>/g, " ").replace(/\s+/g, " ").trim());
