// Runs the tests of an installed suite (its folder is the first argument) against the proxy at a URL (the second, none
// to list the tests only) and prints what they are and their results as JSON.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const INTERVAL = 10 // milliseconds

const [folder, base, only] = process.argv.slice(2)
const load = path => import(pathToFileURL(join(folder, path)))
const { default: suites } = await load('tests/index.mjs')
const { runTests, getResults } = await load('client/runner.mjs')

// These tests of the release want, of an answer to an origin that has just closed the connection, status 200 and a field
// that only that origin can send. Here they ask what the suite's newest version asks: that the answer is not the stored one.
for (const test of suites.flatMap(suite => suite.tests)) {
  if (/^stale-close-/.test(test.id)) {
    test.requests[1] = {
      disconnect: true,
      expected_status: 502,
      check_body: false,
      expected_response_headers_missing: ['Server-Request-Count']
    }
  }
}

// Of these the release wants that an Age which is not one number makes a response stale. The newest version asks what RFC
// 9111 section 5.1 recommends: that the first member of a list counts, and that what is no number is ignored.
const AGES = /^age-parse-(nonnumeric|negative|float|parameter|numeric-parameter|prefix-twoline|dup-0|dup-0-twoline|dup-old)$/
for (const test of suites.flatMap(suite => suite.tests)) {
  if (AGES.test(test.id)) test.requests[1].expected_type = 'cached'
}

const tests = suites.flatMap(suite => suite.tests.filter(test => !test.browser_only).map(test => ({
  suite: suite.id,
  id: test.id,
  name: test.name,
  kind: test.kind ?? 'required',
  depends_on: test.depends_on ?? []
})))

if (base) {
  const fetch = createRequire(join(folder, 'package.json'))('node-fetch')
  // Nearly all of a run is waiting, so that all tests run side by side; but they begin (by telling the origin what to
  // answer) one after the other, lest the crowd take the seconds that some responses are fresh for. One that is never
  // answered fails alone.
  let begun = 0
  const patient = async (url, init) => {
    if (init?.method === 'PUT' && url.startsWith(`${base}/config/`)) {
      await new Promise(resolve => setTimeout(resolve, INTERVAL * begun++))
    }
    return fetch(url, { ...init, timeout: 30000 })
  }
  const chosen = suites.map(suite => ({
    ...suite,
    tests: suite.tests.filter(test => !only || test.id === only).map(test => ({ ...test, dump: Boolean(only) }))
  }))
  const log = console.log
  console.log = console.error
  await runTests(chosen, patient, false, base, Infinity)
  console.log = log
}
console.log(JSON.stringify({ tests, results: getResults() }))
