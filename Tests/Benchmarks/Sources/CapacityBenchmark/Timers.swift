/// What is to be done later, in slots of a millisecond.
struct Timers<Item> {
  private var slots: [[Item]]
  private var doneMs: Int64

  /// Takes delays of up to `horizonMs`; longer ones become that.
  init(horizonMs: Int, nowMs: Int64) {
    slots = Array(repeating: [], count: horizonMs + 2)
    doneMs = nowMs
  }

  mutating func add(_ item: Item, afterMs delay: Int, nowMs: Int64) {
    let ms = max(doneMs + 1, nowMs + Int64(min(max(0, delay), slots.count - 2)))
    slots[Int(ms % Int64(slots.count))].append(item)
  }

  /// Takes out what is due.
  mutating func due(nowMs: Int64) -> [Item] {
    var items: [Item] = []
    while doneMs < nowMs {
      doneMs += 1
      let slot = Int(doneMs % Int64(slots.count))
      if !slots[slot].isEmpty {
        items += slots[slot]
        slots[slot].removeAll()
      }
    }
    return items
  }
}
