import ClusterCore
import Synchronization

/// A model's card, which all images of the model have in common: it is larger than the rest of a request.
final class SharedCard: Hashable, Sendable {
  /// Cards that are found again.
  private static let maxCount = 64
  private static let recent = Mutex<[SharedCard]>([])

  let card: ModelCard

  private init(_ card: ModelCard) { self.card = card }

  /// The one that images of an equal card have, as long as that was asked for lately.
  static func of(_ card: ModelCard) -> SharedCard {
    recent.withLock { recent in
      if let index = recent.firstIndex(where: { $0.card == card }) {
        if index > 0 { recent.swapAt(index, index - 1) }
        return recent[max(0, index - 1)]
      }
      let new = SharedCard(card)
      if recent.count == maxCount { recent.removeLast() }
      recent.append(new)
      return new
    }
  }

  static func == (left: SharedCard, right: SharedCard) -> Bool { left === right || left.card == right.card }

  func hash(into hasher: inout Hasher) { hasher.combine(card) }
}
