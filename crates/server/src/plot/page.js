'use strict'
// Draws each panel on a canvas. Times are milliseconds; those of the data count from the beginning of the panel's axis.
const data = JSON.parse(document.getElementById('data').textContent)
const element = id => document.getElementById(id)
const tip = element('tip')
const LEFT = 62, RIGHT = 14, TOP = 10, BOTTOM = 26
// Left and right of the view, so that a mark at its end is seen whole.
const MARGIN = 8
const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, ...[1, 2, 5, 10, 15, 30].map(n => n * SECOND), ...[1, 2, 5, 10, 15, 30].map(n => n * MINUTE),
  ...[1, 2, 3, 6, 12].map(n => n * HOUR), ...[1, 2, 4, 7, 14, 30, 61, 91, 182, 365, 730, 1826, 3652].map(n => n * DAY)]

const formats = new Map()
function format(at, options) {
  const key = JSON.stringify(options)
  // Of the locales that every browser has, one that writes dates as 2024-02-14 and one that writes them as Feb 14.
  const locale = options.second && options.year ? 'sv-SE' : 'en-US'
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(locale, { timeZone: data.zone, hourCycle: 'h23', ...options }))
  return formats.get(key).format(at)
}
const date = at => format(at, { month: 'short', day: 'numeric' })
const fullTime = at => format(at, { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' })
// How far the zone is ahead of UTC, so that ticks stand at its round times.
function ahead(at) {
  const part = Object.fromEntries(new Intl.DateTimeFormat('en-GB', { timeZone: data.zone, hourCycle: 'h23', year: 'numeric', month: 'numeric',
    day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric' }).formatToParts(at).map(p => [p.type, +p.value]))
  return Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second) - Math.floor(at / 1000) * 1000
}
// Numbers as the dashboard and the sentences write them: 95, 54.5, 3271, 12,480, 1.2e−5.
const plain = new Intl.NumberFormat('en', { maximumSignificantDigits: 4, useGrouping: 'min2' })
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0, useGrouping: 'min2' })
const scientific = new Intl.NumberFormat('en', { notation: 'scientific', maximumSignificantDigits: 3 })
function number(x) {
  const size = Math.abs(x)
  const text = size === 0 ? '0' : size < 1e-3 || size >= 1e9 ? scientific.format(x).toLowerCase() : (size >= 1000 ? whole : plain).format(x)
  return text.replaceAll('-', '−')
}
// From 1e300 on it stands for any change after a constant.
const deviations = z => Math.abs(z) >= 1e300 ? 'any change counts'
  : `${z > 0 ? '+' : ''}${Math.abs(z) >= 1000 ? number(+z.toPrecision(3)) : z.toFixed(1).replace('-', '−')} standard deviations`

function timeTicks(from, to, n) {
  const step = STEPS.find(s => s >= (to - from) / n) ?? STEPS.at(-1)
  const shift = ahead(from), ticks = []
  for (let at = Math.ceil((from + shift) / step) * step - shift; at <= to && ticks.length < 100; at += step) {
    const midnight = (at + shift) % DAY === 0
    const label = step >= 365 * DAY ? format(at, { year: 'numeric' }) : step >= 30 * DAY ? format(at, { month: 'short', year: 'numeric' })
      : midnight || step >= DAY ? date(at)
      : step < SECOND ? format(at, { minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 })
      : format(at, { hour: '2-digit', minute: '2-digit', ...(step < MINUTE && { second: '2-digit' }) })
    ticks.push([at, label])
  }
  return ticks
}

function valueTicks(low, high, n) {
  // Divided first, as the difference of two doubles may be beyond one.
  const rough = high / n - low / n, power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map(t => t * power).find(s => s >= rough * 0.999)
  if (!(step > 0) || !isFinite(step)) return []
  const largest = Math.max(Math.abs(low), Math.abs(high)), ticks = []
  const [unit, suffix] = (largest >= 1e4 && [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']].find(([u]) => largest >= u && step >= u / 1e3)) || [1, '']
  const digits = Math.min(6, Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9)))
  for (let i = Math.ceil(low / step); i * step <= high && ticks.length < 50; i++) {
    const label = i === 0 ? '0' : largest >= 1e15 || step < 1e-4 ? number(i * step) : (((i * step) / unit).toFixed(digits) + suffix).replace('-', '−')
    ticks.push([i * step, label])
  }
  return ticks
}

// The first index whose time is not before `at`.
function seek(times, at) {
  let low = 0, high = times.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[middle] < at) low = middle + 1
    else high = middle
  }
  return low
}

class Panel {
  constructor(source) {
    Object.assign(this, source)
    this.view = [0, this.to - this.from]
    const section = document.createElement('section'), name = document.createElement('div')
    const h2 = document.createElement('h2'), summary = document.createElement('p')
    name.className = 'name'
    h2.title = this.name
    // Apart, so that a metric that turns the direction of text turns that of nothing else.
    const brace = this.name.indexOf('{'), end = brace < 0 ? this.name.length : brace
    for (const part of [this.name.slice(0, end), this.name.slice(end)]) {
      const isolated = document.createElement('bdi')
      isolated.textContent = part
      h2.append(isolated)
    }
    summary.textContent = this.summary
    this.canvas = document.createElement('canvas')
    this.canvas.tabIndex = 0
    this.canvas.setAttribute('role', 'application')
    this.canvas.setAttribute('aria-label', `${this.name}: ${this.summary}`)
    name.append(h2, summary)
    section.append(name, this.canvas)
    document.querySelector('main').append(section)
    this.listen()
  }

  get whole() { return [0, this.to - this.from] }
  get zoomed() { return this.view[0] !== 0 || this.view[1] !== this.to - this.from }
  get room() { return this.width - LEFT - RIGHT - 2 * MARGIN }
  x(at) { return LEFT + MARGIN + (at - this.view[0]) / (this.view[1] - this.view[0]) * this.room }
  at(x) { return this.view[0] + (x - LEFT - MARGIN) / this.room * (this.view[1] - this.view[0]) }
  y(value) { return TOP + (1 - (value / 2 - this.low / 2) / (this.high / 2 - this.low / 2)) * (this.height - TOP - BOTTOM) }

  // The axis of values: what is in view, and as much of the band as leaves it most of the room.
  fit() {
    let low = Infinity, high = -Infinity, lower = Infinity, upper = -Infinity
    const see = value => { low = Math.min(low, value); high = Math.max(high, value) }
    for (const { t, v } of this.lines)
      for (let i = Math.max(0, seek(t, this.view[0]) - 1), end = Math.min(t.length, seek(t, this.view[1]) + 2); i < end; i++) see(v[i])
    const { t, v } = this.marks
    for (let i = seek(t, this.view[0]); i < t.length && t[i] <= this.view[1]; i++) see(v[i])
    const band = this.band
    for (let i = seek(band.t, this.view[0]); i < band.t.length && band.t[i] <= this.view[1]; i++)
      if (band.lower[i] !== null) { lower = Math.min(lower, band.lower[i]); upper = Math.max(upper, band.upper[i]) }
    if (!(low <= high)) [low, high] = [0, 1]
    const half = high / 2 - low / 2 || Math.max(Math.abs(low) * 0.05, 0.5)
    this.low = Math.max(Math.min(low, Math.max(lower, low - 0.4 * half)) - 0.15 * half, -Number.MAX_VALUE)
    this.high = Math.min(Math.max(high, Math.min(upper, high + 0.4 * half)) + 0.2 * half, Number.MAX_VALUE)
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, canvas = this.canvas
    this.width = canvas.clientWidth
    this.height = canvas.clientHeight
    canvas.width = Math.round(this.width * ratio)
    canvas.height = Math.round(this.height * ratio)
    const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(`--${name}`)
    const context = this.context = canvas.getContext('2d')
    context.scale(ratio, ratio)
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`
    context.lineJoin = context.lineCap = 'round'
    this.fit()
    const right = this.width - RIGHT, bottom = this.height - BOTTOM
    context.fillStyle = colour('panel')
    context.fillRect(LEFT, TOP, right - LEFT, bottom - TOP)
    context.strokeStyle = colour('grid')
    context.fillStyle = colour('muted')
    context.lineWidth = 1
    context.textAlign = 'right'
    for (const [value, label] of valueTicks(this.low, this.high, 4)) {
      const y = this.y(value)
      this.stroke([[LEFT, y], [right, y]])
      context.fillText(label, LEFT - 8, y + 4, LEFT - 12)
    }
    context.textAlign = 'center'
    let free = LEFT - 20
    for (const [at, label] of timeTicks(this.from + this.view[0], this.from + this.view[1], Math.max(2, Math.floor(this.width / 110)))) {
      const x = this.x(at - this.from), half = context.measureText(label).width / 2
      this.stroke([[x, TOP], [x, bottom]])
      if (x - half < free || x + half > this.width) continue
      context.fillText(label, x, bottom + 16)
      free = x + half + 10
    }
    context.save()
    context.beginPath()
    context.rect(LEFT, TOP, right - LEFT, bottom - TOP)
    context.clip()
    this.drawBand(colour)
    context.strokeStyle = colour('value')
    context.lineWidth = 1.4
    for (const { t, v } of this.lines) {
      const places = []
      for (let i = Math.max(0, seek(t, this.view[0]) - 1), end = Math.min(t.length, seek(t, this.view[1]) + 1); i < end; i++) places.push([this.x(t[i]), this.y(v[i])])
      this.stroke(places)
      if (places.length <= this.width / 12) for (const [x, y] of places) this.dot(x, y, colour('value'))
    }
    context.restore()
    this.drawMarks(colour)
  }

  stroke(places) {
    if (places.length === 0) return
    this.context.beginPath()
    places.forEach(([x, y], i) => i ? this.context.lineTo(x, y) : this.context.moveTo(x, y))
    if (places.length === 1) this.context.lineTo(places[0][0] + 0.1, places[0][1])
    this.context.stroke()
  }

  dot(x, y, colour) {
    this.context.fillStyle = colour
    this.context.beginPath()
    this.context.arc(x, y, 2, 0, 7)
    this.context.fill()
  }

  drawBand(colour) {
    const { t, expected, lower, upper } = this.band, context = this.context
    const first = Math.max(0, seek(t, this.view[0]) - 1), end = Math.min(t.length, seek(t, this.view[1]) + 1)
    const run = (from, to) => {
      context.beginPath()
      for (let i = from; i < to; i++) context.lineTo(this.x(t[i]), this.y(upper[i]))
      for (let i = to - 1; i >= from; i--) context.lineTo(this.x(t[i]), this.y(lower[i]))
      context.fillStyle = colour('band')
      context.fill()
      context.strokeStyle = colour('expected')
      context.lineWidth = 1.2
      context.setLineDash([5, 4])
      this.stroke(Array.from({ length: to - from }, (_, i) => [this.x(t[from + i]), this.y(expected[from + i])]))
      context.setLineDash([])
    }
    let from = first
    for (let i = first; i <= end; i++)
      if (i === end || expected[i] === null) { if (i > from) run(from, i); from = i + 1 }
  }

  drawMarks(colour) {
    const { t, v, critical } = this.marks, context = this.context
    for (const severity of [0, 1])
      for (let i = seek(t, this.view[0]); i < t.length && t[i] <= this.view[1]; i++) {
        if (critical[i] !== severity) continue
        const x = this.x(t[i]), y = this.y(v[i]), chosen = this.chosen === i ? 3 : 0
        context.strokeStyle = colour(severity ? 'critical' : 'warning')
        context.lineWidth = 1.6
        this.stroke([[x, TOP], [x, TOP + 7]])
        context.beginPath()
        if (severity) [[0, -6 - chosen], [6 + chosen, 0], [0, 6 + chosen], [-6 - chosen, 0]].forEach(([dx, dy]) => context.lineTo(x + dx, y + dy))
        else [[0, -5.5 - chosen], [5.5 + chosen, 4.5 + chosen], [-5.5 - chosen, 4.5 + chosen]].forEach(([dx, dy]) => context.lineTo(x + dx, y + dy))
        context.closePath()
        context.fillStyle = colour(severity ? 'critical' : 'panel')
        context.fill()
        context.strokeStyle = colour(severity ? 'panel' : 'warning')
        context.lineWidth = severity ? 1 : 2
        context.stroke()
      }
  }

  // --- what the reader does -------------------------------------------------------------------------------------------

  listen() {
    const canvas = this.canvas
    let start = null
    canvas.addEventListener('pointerdown', event => {
      if (event.button !== 0) return
      start = event.offsetX
      canvas.setPointerCapture(event.pointerId)
    })
    canvas.addEventListener('pointermove', event => {
      this.draw()
      if (start === null || Math.abs(event.offsetX - start) < 4) return this.point(event)
      tip.hidden = true
      this.context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--band')
      const [a, b] = [start, event.offsetX].map(x => Math.min(Math.max(x, LEFT), this.width - RIGHT))
      this.context.fillRect(Math.min(a, b), TOP, Math.abs(b - a), this.height - TOP - BOTTOM)
    })
    canvas.addEventListener('pointerup', event => {
      if (start !== null && Math.abs(event.offsetX - start) >= 4) this.zoom(this.at(Math.min(start, event.offsetX)), this.at(Math.max(start, event.offsetX)))
      start = null
    })
    canvas.addEventListener('pointercancel', () => { start = null; this.draw() })
    canvas.addEventListener('pointerleave', () => { tip.hidden = true; this.draw() })
    canvas.addEventListener('dblclick', () => this.zoom(...this.whole))
    canvas.addEventListener('blur', () => { tip.hidden = true })
    canvas.addEventListener('keydown', event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return
      const [from, to] = this.view, width = to - from
      const act = {
        '+': () => this.zoom(from + width / 4, to - width / 4), '=': () => this.zoom(from + width / 4, to - width / 4),
        '-': () => this.zoom(from - width / 2, to + width / 2), ArrowLeft: () => this.move(-width / 4), ArrowRight: () => this.move(width / 4),
        Escape: () => this.zoom(...this.whole), Home: () => this.zoom(...this.whole), 0: () => this.zoom(...this.whole), n: () => this.choose(1), p: () => this.choose(-1),
      }[event.key]
      if (act) { event.preventDefault(); act() }
    })
  }

  move(by) {
    const [from, to] = this.view, end = this.to - this.from
    by = Math.max(-from, Math.min(by, end - to))
    this.zoom(from + by, to + by)
  }

  // Panels with the same axis of time move together.
  zoom(from, to) {
    const end = this.to - this.from
    from = Math.max(0, from)
    to = Math.min(end, to)
    if (to - from < 1e-3) return
    for (const panel of panels)
      if (panel === this || (panel.from === this.from && panel.to === this.to)) { panel.view = [from, to]; panel.draw() }
    tip.hidden = true
    element('all').hidden = !panels.some(panel => panel.zoomed)
  }

  choose(by) {
    const { t } = this.marks
    if (t.length === 0) return
    this.chosen = this.chosen === undefined ? (by > 0 ? 0 : t.length - 1) : (this.chosen + by + t.length) % t.length
    const at = t[this.chosen], [from, to] = this.view
    if (at < from || at > to) this.move(at - (from + to) / 2)
    this.draw()
    const box = this.canvas.getBoundingClientRect()
    this.tell(this.markText(this.chosen), box.left + this.x(at), box.top + this.y(this.marks.v[this.chosen]))
    element('said').textContent = tip.textContent
  }

  markText(i) {
    const { t, v, z, critical } = this.marks
    return `${critical[i] ? '◆ critical' : '△ warning'}\n${fullTime(this.from + t[i])}\n${number(v[i])}${z[i] === null ? '' : `, ${deviations(z[i])}`}`
  }

  // Says what is under the pointer: an anomaly that is near, else the nearest row.
  point(event) {
    const [x, y] = [event.offsetX, event.offsetY], { t, v } = this.marks
    let best = null, distance = 12
    for (let i = seek(t, this.at(x - 12)); i < t.length && t[i] <= this.at(x + 12); i++) {
      const away = Math.hypot(this.x(t[i]) - x, this.y(v[i]) - y)
      if (away <= distance) [best, distance] = [i, away]
    }
    if (best !== null) return this.tell(this.markText(best), event.clientX, event.clientY)
    const at = this.at(x)
    let row = null
    for (const line of this.lines)
      for (const i of [seek(line.t, at) - 1, seek(line.t, at)])
        if (i >= 0 && i < line.t.length && (row === null || Math.abs(line.t[i] - at) < Math.abs(row[0] - at))) row = [line.t[i], line.v[i]]
    if (row === null || x < LEFT || x > this.width - RIGHT) { tip.hidden = true; return }
    this.dot(this.x(row[0]), this.y(row[1]), getComputedStyle(document.documentElement).getPropertyValue('--text'))
    const { t: times, expected, lower, upper } = this.band, i = Math.min(seek(times, row[0]), times.length - 1)
    const band = i < 0 || expected[i] === null ? '' : `\nexpected ${number(expected[i])} (${number(lower[i])} … ${number(upper[i])})`
    this.tell(`${fullTime(this.from + row[0])}\n${number(row[1])}${band}`, event.clientX, event.clientY)
  }

  tell(text, x, y) {
    tip.textContent = text
    tip.hidden = false
    tip.style.left = `${Math.min(x + 14, innerWidth - tip.offsetWidth - 8)}px`
    tip.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - tip.offsetHeight - 8))}px`
  }
}

document.title = data.title
document.querySelector('h1').textContent = data.title
element('subtitle').textContent = data.subtitle
element('note').textContent = data.note
document.body.style.setProperty('--height', `${[0, 400, 300][data.panels.length] ?? 220}px`)
const panels = data.panels.map(source => new Panel(source))
const drawAll = () => panels.forEach(panel => panel.draw())
element('all').addEventListener('click', () => { panels.forEach(panel => { panel.view = panel.whole }); drawAll(); element('all').hidden = true })
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll)
addEventListener('resize', drawAll)
drawAll()
